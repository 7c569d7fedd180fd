"""Schemas of the built-in kinds, read from the generated `builtin.json.gz` and unfolded one kind at a time.

Data: `kinds` maps `group/version/Kind` to a definition, `definitions` maps a name to `f` (fields), `r` (required), `x`
(atomic). A field is a letter (`s` string, `i` int32, `l` int64, `n` number, `b` boolean, `q` quantity, `is` int or
string, `t` time, `mt` micro time, `y` base64 bytes, `*` anything), `@definition`, or an object: `a` array of, `o` map
of, `t` either of the former, with the merge rules `l` list type, `k` keys, `m` merge key, `p` patch strategy, `x`
atomic.
"""

from __future__ import annotations

import gzip
from functools import cache
from importlib import resources
from typing import Any

import orjson

from kapi.schemas.schema import Schema
from kcore.meta.gvk import Resource
from kcore.meta.schema import ANY, Node, NodeType

_LETTERS: dict[str, NodeType] = {
    's': 'string', 'i': 'int32', 'l': 'int64', 'n': 'number', 'b': 'boolean', 'q': 'quantity', 'is': 'int-or-string',
    't': 'time', 'mt': 'micro-time', 'y': 'bytes',
}  # fmt: skip
_SCALARS = {letter: Node(kind) for letter, kind in _LETTERS.items()}


class Definitions:
    """All definitions of one version; nodes are made on first use and shared."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.version: str = data['version']
        self.kinds: dict[str, str] = data['kinds']
        self._raw: dict[str, Any] = data['definitions']
        self._nodes: dict[str, Node] = {}

    def node(self, name: str) -> Node:
        """Raises KeyError for an unknown definition."""
        found = self._nodes.get(name)
        if found is None:
            raw = self._raw[name]
            found = self._nodes[name] = Node('object', name, required=tuple(raw.get('r', ())), atomic='x' in raw)
            found.fields = {key: self._field(value) for key, value in raw['f'].items()}  # after, because of cycles
        return found

    def _field(self, raw: Any) -> Node:
        if isinstance(raw, str):
            return self._named(raw)
        if 'a' in raw:
            node = Node('array', items=self._field(raw['a']))
        elif 'o' in raw:
            node = Node('map', items=self._field(raw['o']))
        else:
            target = self._named(raw['t'])
            node = Node(target.type, target.name, target.fields, target.items, target.required, atomic=target.atomic)
        node.list_type = raw.get('l', 'atomic')
        node.keys = tuple(raw.get('k', ()))
        node.merge_key = raw.get('m', '')
        node.strategies = tuple(raw['p'].split(',')) if 'p' in raw else ()
        node.atomic = node.atomic or 'x' in raw
        return node

    def _named(self, raw: str) -> Node:
        if raw == '*':
            return ANY
        return self.node(raw[1:]) if raw.startswith('@') else _SCALARS[raw]


@cache
def definitions() -> Definitions:
    data = (resources.files('kapi.schemas') / 'builtin.json.gz').read_bytes()
    return Definitions(orjson.loads(gzip.decompress(data)))


@cache
def find(group: str, version: str, kind: str) -> Schema | None:
    """The schema of a built-in kind, or None."""
    known = definitions()
    name = known.kinds.get(f'{group}/{version}/{kind}')
    return None if name is None else Schema(known.node(name), version, kind)


def schema_for(resource: Resource) -> Schema:
    """The schema of a built-in resource; cheap after the first call. Raises KeyError."""
    found = find(resource.group, resource.version, resource.kind)
    if found is None:
        raise KeyError(f'no schema for {resource.api_version} {resource.kind}')
    return found


def component_names(group: str, version: str) -> dict[str, str]:
    """Kind → definition, of one group and version."""
    prefix = f'{group}/{version}/'
    return {key.removeprefix(prefix): name for key, name in definitions().kinds.items() if key.startswith(prefix)}
