"""The server's view of the kinds' schemas: checking bodies, merging patches, feeding OpenAPI.

One object per server, so that schemas of custom resources can come and go without touching the built-in ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kapi import schemas as builtin
from kapi.errors import BadRequest, InvalidObject, UnsupportedMediaType
from kapi.registry.kind import Kind
from kapi.registry.options import Validation
from kapi.schemas.builtin import find
from kapi.schemas.protobuf import ProtobufError, decode
from kcore.meta.gvk import Resource
from kcore.meta.schema import ANY, Node

Obj = dict[str, Any]


class Schemas:
    def find(self, resource: Resource) -> builtin.Schema | None:
        return find(resource.group, resource.version, resource.kind)

    def node(self, resource: Resource) -> Node:
        """The structural schema, `ANY` where none is known."""
        schema = self.find(resource)
        return schema.root if schema is not None else ANY

    def parse_json(self, data: bytes) -> Obj:
        """A body that remembers repeated keys. Raises BadRequest."""
        try:
            return builtin.parse_json(data)
        except builtin.DecodeError as e:
            raise BadRequest(str(e)) from e

    def conform(
        self, resource: Resource, obj: Obj, validation: Validation, *, patched: bool = False
    ) -> tuple[Obj, list[str]]:
        """The object without nulls and unknown fields, and warnings.

        Raises BadRequest: wrong type, or unknown fields under Strict; the latter InvalidObject when `patched`.
        """
        schema = self.find(resource)
        if schema is None:
            return obj, []
        try:
            return builtin.conform(obj, schema, validation)
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
        return self.find(resource) is not None

    def name(self, resource: Resource) -> str:
        """Component name of a kind's schema."""
        schema = self.find(resource)
        return schema.root.name if schema is not None else f'{resource.group}.{resource.version}.{resource.kind}'

    def builtin(self, resource: Resource) -> bool:
        """Whether strategic merge patches are taken: for every kind but custom resources."""
        return '.' not in resource.group or resource.group.endswith('.k8s.io')

    def components(self, kinds: Iterable[Kind]) -> Obj:
        """The component schemas of the kinds of one group and version."""
        listed = [k.resource for k in kinds]
        if not listed:
            return {}
        found = builtin.components(listed[0].group, listed[0].version, [r.kind for r in listed])
        return {**builtin.components('autoscaling', 'v1', ['Scale']), **found}
