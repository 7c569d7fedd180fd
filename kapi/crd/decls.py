"""What a schema says of the sizes of values: how many elements or bytes at most, how few bytes of JSON at least.

Limits that are not declared follow from the largest request. Source: apiserver pkg/cel/common/schemas.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kapi.crd.rules import escape
from kapi.schemas.structural import EMBEDDED, INT_OR_STRING, Props

REQUEST_BYTES = 3 * 1024 * 1024
_DATE_BYTES, _MOMENT_BYTES, _SPAN_BYTES = 12, 32, 32
"""The longest with their quotes."""
_BYTES_PER_CHAR = 4
_LEAST = {'boolean': 4, 'integer': 1, 'number': 1, 'string': 2, 'date': 12, 'date-time': 21, 'duration': 3}
_KINDS = {'boolean': 'bool', 'integer': 'int', 'number': 'double'}


@dataclass(frozen=True, slots=True)
class Decl:
    """The type of a value. `max` counts characters, bytes, items or entries; 0 where nothing is counted."""

    kind: str
    """As CEL names it: int, string, list, map, …; `object` has named fields, `dyn` is anything."""
    max: int = 0
    least: int = 2
    """Bytes of the shortest JSON."""
    items: Decl | None = None
    """Of a list or the values of a map."""
    fields: Mapping[str, Decl] = field(default_factory=dict)
    """By escaped name."""

    @property
    def times_max(self) -> int:
        """How often this may occur where nothing above it is limited."""
        return REQUEST_BYTES // (self.least + 1)


DYN = Decl('dyn')
STRING = Decl('string')


def decl_of(props: Props, *, root: bool = False) -> Decl | None:
    """None for what expressions cannot see: no type is given. `root`: a whole object, which has metadata."""
    if props.get(INT_OR_STRING):
        limit = props.get('maxLength')
        return Decl('dyn', REQUEST_BYTES - 2 if limit is None else limit * _BYTES_PER_CHAR, 1)
    kind = props.get('type')
    match kind:
        case 'array':
            return _list(props)
        case 'object' if isinstance(props.get('additionalProperties'), dict):
            return _map(props)
        case 'object':
            return _object(props, root=root or bool(props.get(EMBEDDED)))
        case 'string':
            return _string(props)
    return Decl(_KINDS[kind], least=_LEAST[kind]) if kind in _KINDS else None


def _list(props: Props) -> Decl | None:
    items = decl_of(props.get('items') or {})
    if items is None:
        return None
    most = props.get('maxItems')
    return Decl('list', (REQUEST_BYTES - 2) // (items.least + 1) if most is None else most, items=items)


def _map(props: Props) -> Decl | None:
    values = decl_of(props['additionalProperties'])
    if values is None:
        return None
    most = props.get('maxProperties')
    # `"":` and a comma, and two bytes for a name
    return Decl('map', (REQUEST_BYTES - 2) // (values.least + 6) if most is None else most, items=values)


def _object(props: Props, *, root: bool) -> Decl:
    named: dict[str, Props] = dict(props.get('properties') or {})
    if root:
        text: Props = {'type': 'string'}
        named |= {'apiVersion': text, 'kind': text}
        named['metadata'] = {'type': 'object', 'properties': {'name': text, 'generateName': text}}
    found = {name: decl for name, below in named.items() if (decl := decl_of(below)) is not None}
    needed = [n for n in props.get('required') or () if n in found and named[n].get('default') is None]
    least = 2 + sum(len(n) + found[n].least + 4 for n in needed)
    return Decl('object', least=least, fields={escape(n): decl for n, decl in found.items()})


def _string(props: Props) -> Decl:
    form, limit = props.get('format'), props.get('maxLength')
    match form:
        case 'duration':
            return Decl('duration', _SPAN_BYTES, _LEAST[form])
        case 'date':
            return Decl('timestamp', _DATE_BYTES, _LEAST[form])
        case 'date-time':
            return Decl('timestamp', _MOMENT_BYTES, _LEAST[form])
        case 'byte':
            return Decl('bytes', REQUEST_BYTES - 2 if limit is None else limit)
    if limit is not None:
        return Decl('string', limit * _BYTES_PER_CHAR)
    words = [w for w in props.get('enum') or () if isinstance(w, str)]
    return Decl('string', max(len(w.encode()) for w in words) if words else REQUEST_BYTES - 2)
