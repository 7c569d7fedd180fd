"""The server's view of the kinds' schemas: checking bodies, merging patches, feeding OpenAPI.

One object per server, so that schemas of custom resources can come and go without touching the built-in ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kapi import schemas as builtin
from kapi.crd.openapi import component_name, components
from kapi.errors import BadRequest, InvalidObject, UnsupportedMediaType
from kapi.registry.kind import Kind
from kapi.registry.options import Validation
from kapi.schemas.builtin import find
from kapi.schemas.protobuf import ProtobufError, decode
from kapi.schemas.structural import Structural
from kcore.meta.gvk import Resource
from kcore.meta.schema import ANY, Node

Obj = dict[str, Any]


SUMMARY_BYTES = 30


def _summary(body: bytes) -> str:
    """The beginning of a body that nobody could read; in hexadecimal where it is no JSON object."""
    if not body:
        return '<empty>'
    begin = body[:SUMMARY_BYTES]
    text = begin.decode(errors='replace') if body.startswith(b'{') else begin.hex()
    return text + (' ...' if len(body) > SUMMARY_BYTES else '')


class Schemas:
    def __init__(self) -> None:
        self._custom: dict[tuple[str, str, str], Structural] = {}

    def add_custom(self, resource: Resource, schema: Structural) -> None:
        self._custom[resource.group, resource.version, resource.kind] = schema

    def remove_custom(self, resource: Resource) -> None:
        self._custom.pop((resource.group, resource.version, resource.kind), None)

    def custom(self, resource: Resource) -> Structural | None:
        """The schema of a custom resource."""
        return self._custom.get((resource.group, resource.version, resource.kind))

    def find(self, resource: Resource) -> builtin.Schema | None:
        return find(resource.group, resource.version, resource.kind)

    def node(self, resource: Resource) -> Node:
        """The structural schema, `ANY` where none is known."""
        custom = self.custom(resource)
        if custom is not None:
            return custom.node
        schema = self.find(resource)
        return schema.root if schema is not None else ANY

    def parse_json(self, data: bytes, kind: str) -> Obj:
        """The body of a `kind` that remembers repeated keys. Raises BadRequest."""
        try:
            return builtin.parse_json(data)
        except builtin.DecodeError as e:
            what = f'the object provided is unrecognized (must be of type {kind})'
            raise BadRequest(f"{what}: couldn't get version/kind; {e} ({_summary(data)})") from e

    def conform(
        self, resource: Resource, obj: Obj, validation: Validation, *, patched: bool = False, told: str = ''
    ) -> tuple[Obj, list[str]]:
        """The object without nulls and unknown fields, and warnings.

        Raises BadRequest: wrong type, or unknown fields under Strict; the latter InvalidObject when `patched`.
        """
        schema, custom = self.find(resource), self.custom(resource)
        if schema is None and custom is None:
            return obj, []
        try:
            if custom is not None:
                return custom.conform(obj, validation, told)
            assert schema is not None
            return builtin.conform(obj, schema, validation, told)
        except builtin.StrictError as e:
            raise (InvalidObject.plain(str(e)) if patched else BadRequest(str(e))) from e
        except builtin.DecodeError as e:
            raise BadRequest(str(e)) from e

    def decode_protobuf(self, data: bytes) -> Obj:
        """Raises UnsupportedMediaType."""
        try:
            return decode(data)
        except ProtobufError as e:
            raise UnsupportedMediaType(str(e)) from e

    def known(self, resource: Resource) -> bool:
        return self.custom(resource) is not None or self.find(resource) is not None

    def name(self, resource: Resource) -> str:
        """Component name of a kind's schema."""
        schema = self.find(resource)
        if schema is None or self.custom(resource) is not None:
            return component_name(resource)
        return schema.root.name

    def builtin(self, resource: Resource) -> bool:
        """Whether strategic merge patches are taken: for every kind but custom resources."""
        return self.custom(resource) is None

    def components(self, kinds: Iterable[Kind]) -> Obj:
        """The component schemas of the kinds of one group and version."""
        served = tuple(kinds)
        listed = [k.resource for k in served if self.custom(k.resource) is None]
        custom = {
            name: schema
            for k in served
            if (own := self.custom(k.resource)) is not None
            for name, schema in components(k, own.props).items()
        }
        if not listed:
            return {**builtin.components('autoscaling', 'v1', ['Scale']), **custom}
        found = builtin.components(listed[0].group, listed[0].version, [r.kind for r in listed])
        return {**builtin.components('autoscaling', 'v1', ['Scale']), **found, **custom}
