"""The definitions that the watch cache holds, as kinds in the catalog: brought up to date before every request.

`sync` compares one counter when nothing changed, so any API server serves what its cache knows, with no task in
between. A request for a kind that is not known first makes the cache fresh: whoever saw `Established` through one
server finds the kind at every other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from kapi.aggregation.endpoints import Transport
from kapi.crd.conversion import Converter, Renaming
from kapi.crd.definition import Version, build
from kapi.crd.rules import RuleError
from kapi.crd.webhook import Webhook
from kapi.registry.catalog import Catalog, key_prefix
from kapi.server.schemas import Schemas
from kapi.storage.cache import Cache
from kapi.storage.entries import Entry
from kcore.meta.objects import condition_is, get_path

Obj = dict[str, Any]
log = structlog.get_logger('kapi.crd')

PREFIX = '/registry/apiextensions.k8s.io/customresourcedefinitions/'
WATCH_GRACE_S = 1.0
"""Watches of a changed or removed kind may deliver what they have before they are cut and their clients start anew."""


@dataclass(slots=True)
class Known:
    """What is registered of one definition."""

    rv: int
    edition: tuple[str, int, bool]
    """uid, generation, whether it is terminating: only these change what is served."""
    versions: tuple[Version, ...]


class Registrar:
    """Keeps the catalog and the schemas in step with the definitions."""

    def __init__(
        self, cache: Cache, catalog: Catalog, schemas: Schemas, transport: Transport, new_uid: Callable[[], str]
    ) -> None:
        self._cache = cache
        self._catalog = catalog
        self._schemas = schemas
        self._transport = transport
        self._new_uid = new_uid
        self._changes = -1
        self._known: dict[str, Known] = {}
        """By key in the store."""

    def sync(self) -> None:
        resource = self._cache.resource(PREFIX)
        if resource.changes == self._changes:
            return
        self._changes = resource.changes
        for key in [k for k in self._known if k not in resource.entries]:
            self._drop(self._known.pop(key))
        for key, entry in resource.entries.items():
            known = self._known.get(key)
            if known is None or known.rv != entry.rv:
                self._take(key, entry, known)

    async def settle(self) -> None:
        """As `sync`, after the cache has caught up with the store. Raises StorageUnavailable."""
        await self._cache.fresh()
        self.sync()

    def versions(self, name: str) -> tuple[Version, ...]:
        """The versions of a registered definition; empty for one that is not."""
        known = self._known.get(PREFIX + name)
        return known.versions if known is not None else ()

    def _take(self, key: str, entry: Entry, known: Known | None) -> None:
        crd = entry.obj
        if not condition_is(crd, 'Established'):
            return
        meta = crd['metadata']
        edition = (meta['uid'], int(meta.get('generation') or 0), condition_is(crd, 'Terminating'))
        if known is not None and known.edition == edition:
            known.rv = entry.rv
            return
        try:
            versions = build(crd, self._converter(crd))
        except RuleError as e:
            log.warning('a definition cannot be served', crd=meta['name'], err=str(e))
            versions = ()
        if known is not None:
            self._drop(known)
        for version in versions:
            if version.served:
                self._schemas.add_custom(version.kind.resource, version.schema)
                self._catalog.add(version.kind)
        self._known[key] = Known(entry.rv, edition, versions)

    def _converter(self, crd: Obj) -> Converter:
        if get_path(crd, 'spec.conversion.strategy') == 'Webhook':
            return Webhook(crd, self._transport, self._new_uid)
        return Renaming()

    def _drop(self, known: Known) -> None:
        for version in known.versions:
            if version.served:
                self._schemas.remove_custom(version.kind.resource)
                self._catalog.remove(version.kind.resource)
        if known.versions:
            hub = self._cache.resource(key_prefix(known.versions[0].kind.resource)).hub
            loop = asyncio.get_running_loop()
            for watcher in hub.everyone():
                loop.call_later(WATCH_GRACE_S, watcher.cut)
