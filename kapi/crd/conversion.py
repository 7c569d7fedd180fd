"""One stored object, several served versions: what readers of each version see, and what is written.

A stored value may be older than the definition: it is pruned and defaulted under the version it was written in, then
converted. With strategy None that is a new apiVersion, with Webhook a ConversionReview for all objects of a list at
once. The result is kept beside the cache entry until either changes.
Source: apiextensions-apiserver pkg/apiserver/conversion/{converter,webhook_converter}.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from kapi.errors import InternalError
from kapi.schemas.structural import Structural
from kapi.storage.codec import encode
from kapi.storage.entries import Entry

Obj = dict[str, Any]


class Converter(Protocol):
    """Turns whole objects into another version."""

    async def convert(self, objects: Sequence[Obj], api_version: str) -> list[Obj]:
        """Same order and number. Raises InternalError."""


class Renaming:
    """Strategy None: all versions have one shape."""

    async def convert(self, objects: Sequence[Obj], api_version: str) -> list[Obj]:
        return [{**o, 'apiVersion': api_version} for o in objects]


class VersionView:
    """The objects of a definition as one version shows them; a `Conversion` of `kapi.registry.kind`."""

    def __init__(
        self, api_version: str, storage_version: str, schemas: Mapping[str, Structural], converter: Converter
    ) -> None:
        self._api_version = api_version
        self._storage_version = storage_version
        self._schemas = schemas
        """By apiVersion."""
        self._converter = converter

    @property
    def simple(self) -> bool:
        """Whether every entry can be seen without asking anybody."""
        return isinstance(self._converter, Renaming)

    def seen(self, entry: Entry) -> Entry | None:
        """The entry in this version, when that is already known or needs no webhook."""
        found = entry.served_as(self)
        if found is not None:
            return found
        settled = self._settled(entry)
        if settled.get('apiVersion') == self._api_version:
            return self._keep(entry, settled)
        if self.simple:
            return self._keep(entry, {**settled, 'apiVersion': self._api_version})
        return None

    async def served(self, entries: Sequence[Entry]) -> list[Entry]:
        """Raises InternalError when the webhook fails."""
        found = [self.seen(e) for e in entries]
        missing = [i for i, e in enumerate(found) if e is None]
        if missing:
            objects = [self._settled(entries[i]) for i in missing]
            converted = await self._converter.convert(objects, self._api_version)
            for i, obj in zip(missing, converted, strict=True):
                found[i] = self._keep(entries[i], obj)
        return [e for e in found if e is not None]

    async def stored(self, obj: Obj) -> Obj:
        """What to store for an object of this version."""
        return await self.converted(obj, self._storage_version)

    async def converted(self, obj: Obj, api_version: str) -> Obj:
        """An object of this version in another one."""
        if self._api_version == api_version:
            return obj
        version = obj['metadata'].get('resourceVersion')
        converted = (await self._converter.convert([obj], api_version))[0]
        schema = self._schemas.get(api_version)
        if schema is not None:
            schema.prune(converted)
        if version:
            converted['metadata']['resourceVersion'] = version
        return converted

    def _settled(self, entry: Entry) -> Obj:
        obj: Obj = entry.obj if entry.rv else orjson.loads(entry.value)
        schema = self._schemas.get(obj.get('apiVersion', ''))
        return schema.settled(obj) if schema is not None else obj

    def _keep(self, entry: Entry, obj: Obj) -> Entry:
        same = entry.rv and obj is entry.obj
        made = entry if same else Entry(entry.key, encode(obj), entry.rv)
        entry.keep_served(self, made)
        if made is not entry:
            made.keep_served(self, made)
        return made


def check_converted(before: Obj, after: Any, api_version: str) -> Obj:
    """A webhook may not touch the identity of an object. Raises InternalError."""
    if not isinstance(after, dict) or not isinstance(after.get('metadata'), dict):
        raise InternalError('conversion webhook returned something that is no object')
    if after.get('apiVersion') != api_version or after.get('kind') != before.get('kind'):
        got = f'{after.get("apiVersion")}, Kind={after.get("kind")}'
        raise InternalError(f'conversion webhook returned an object of type {got}, expected {api_version}')
    kept, given = before['metadata'], after['metadata']
    for field in kept.keys() | given.keys():
        if field not in {'labels', 'annotations'} and kept.get(field) != given.get(field):
            raise InternalError(f'conversion webhook must not change metadata.{field}')
    merged = {**kept, **{k: given[k] for k in ('labels', 'annotations') if k in given}}
    for field in ('labels', 'annotations'):
        if field not in given:
            merged.pop(field, None)
    return {**after, 'metadata': merged}
