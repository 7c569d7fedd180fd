"""One kind's schema, ready to check objects: a compiled validator for the usual case, a walk for the exact message.

A valid object costs some ten microseconds. Only what fails is walked in Python, to say what a Go server would say
(source of texts: encoding/json `UnmarshalTypeError`, sigs.k8s.io/json strict errors) and to drop what is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kcore.meta.quantity import QuantityError, parse
from kcore.meta.schema import Node
from kcore.meta.times import parse_time

INT_RANGES = {'int32': (-(2**31), 2**31 - 1), 'int64': (-(2**63), 2**63 - 1)}
_BASE64 = r'^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$'
_TIME = r'^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d([.,]\d+)?([Zz]|[+-]\d\d:\d\d)$'
_QUANTITY = r'^[+-]?(\d+(\.\d*)?|\.\d+)([numkMGTPE]?|[KMGTPE]i|[eE][+-]?\d+)$'
_base64_re = re.compile(_BASE64)
_GO_SCALARS = {'string': 'string', 'int32': 'int32', 'int64': 'int64', 'number': 'float64', 'boolean': 'bool'}


STRICT_ERRORS_MAX = 100
"""So many unknown and duplicate fields are told; upstream's decoder remembers no more, either."""


@dataclass(slots=True)
class Findings:
    """What a walk found; empty when the object is fine."""

    type_error: str = ''
    """The first wrong type, as the Go decoder words it."""
    strict: list[str] = field(default_factory=list)
    """Unknown and duplicate fields in document order."""


class Pairs(dict[str, Any]):
    """A decoded JSON object that remembers every pair it was made of, so that duplicates can be named."""

    __slots__ = ('pairs',)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


class Schema:
    """The structural schema of one kind in one version."""

    def __init__(self, root: Node, version: str, kind: str) -> None:
        self.root = root
        self.version = version
        self.kind = kind

    @cached_property
    def _validator(self) -> Any:
        import jsonschema_rs  # noqa: PLC0415 — compiled on first use, so that a start does not pay for every kind

        return jsonschema_rs.Draft4Validator(json_schema(self.root))

    def is_valid(self, obj: Any) -> bool:
        """Whether `obj` can be taken as it is: every field known, of its type, neither null nor an empty optional
        list or map."""
        return bool(self._validator.is_valid(obj))

    def inspect(self, obj: Any) -> Findings:
        """Everything wrong with `obj`; changes nothing."""
        found = Findings()
        for error in _walk(self.root, obj, '', '', self.root):
            if error.startswith(('unknown field', 'duplicate field')):
                if len(found.strict) < STRICT_ERRORS_MAX:
                    found.strict.append(error)
            elif not found.type_error:
                found.type_error = error
        return found

    def prune(self, obj: Any) -> None:
        """Remove unknown fields in place."""
        _prune(self.root, obj)

    def drop_nulls(self, obj: Any) -> None:
        """In place: a null field is an absent one; in lists and maps it is the type's zero value.

        So is an optional list or map that is empty, because a Go server leaves it out (`omitempty`).
        """
        _drop_nulls(self.root, obj)


def json_schema(root: Node) -> dict[str, Any]:
    """`root` as draft 4 JSON schema with nothing unknown allowed; draft 4, because there 1.0 is no integer."""
    defined: dict[str, Any] = {}

    def build(node: Node) -> dict[str, Any]:
        if node.name and not node.preserve_unknown:
            if node.name not in defined:
                defined[node.name] = None  # before its fields, because of cycles
                defined[node.name] = _object_schema(node, build)
            return {'$ref': f'#/definitions/{node.name}'}
        return _plain_schema(node, build)

    top = build(root)
    return {'$schema': 'http://json-schema.org/draft-04/schema#', **top, 'definitions': defined}


def _object_schema(node: Node, build: Any) -> dict[str, Any]:
    return {
        'type': 'object',
        'properties': {
            key: build(child) if key in node.required else {**build(child), **_NOT_EMPTY.get(child.type, {})}
            for key, child in node.fields.items()
        },
        'additionalProperties': node.preserve_unknown,
    }


def _plain_schema(node: Node, build: Any) -> dict[str, Any]:
    match node.type:
        case 'object':
            return _object_schema(node, build)
        case 'map':
            return {'type': 'object', 'additionalProperties': build(node.items) if node.items else True}
        case 'array':
            return {'type': 'array', 'items': build(node.items) if node.items else {}}
        case 'int32' | 'int64':
            low, high = INT_RANGES[node.type]
            return {'type': 'integer', 'minimum': low, 'maximum': high}
        case 'quantity':
            return {'type': ['string', 'number'], 'pattern': _QUANTITY}
        case 'int-or-string':
            return {'type': ['string', 'integer']}
        case 'time' | 'micro-time':
            return {'type': 'string', 'pattern': _TIME}
        case 'bytes':
            return {'type': 'string', 'pattern': _BASE64}
        case 'any':
            return {}
        case _:
            return {'type': node.type}


def _json_word(value: Any) -> str:
    match value:
        case bool():
            return 'bool'
        case str():
            return 'string'
        case int() | float():
            return 'number'
        case list():
            return 'array'
        case _:
            return 'object'


def go_type(node: Node) -> str:
    """The Go type a client author would know: `int32`, `[]v1.Container`, `map[string]string`."""
    match node.type:
        case 'object':
            return '.'.join(node.name.split('.')[-2:]) if node.name else 'struct'
        case 'array':
            return f'[]{go_type(node.items)}' if node.items else '[]interface {}'
        case 'map':
            return f'map[string]{go_type(node.items)}' if node.items else 'map[string]interface {}'
        case 'quantity':
            return 'resource.Quantity'
        case 'bytes':
            return '[]uint8'
        case 'time':
            return 'v1.Time'
        case 'micro-time':
            return 'v1.MicroTime'
        case 'int-or-string':
            return 'intstr.IntOrString'
        case other:
            return _GO_SCALARS.get(other, 'interface {}')


def _mismatch(node: Node, value: Any, plain: str, owner: Node) -> str:
    """`plain` is the path without list indices, as Go prints it."""
    word = _json_word(value)
    if word == 'number' and node.type in INT_RANGES:
        word = f'number {value}'
    holder = owner.name.rpartition('.')[2] or 'struct'
    where = f'Go struct field {holder}.{plain} of type' if plain else 'Go value of type'
    return f'json: cannot unmarshal {word} into {where} {go_type(node)}'


def _walk(node: Node, value: Any, at: str, plain: str, owner: Node) -> Iterator[str]:
    """Errors under one value. `at` is the exact path, `owner` the struct that holds the value."""
    if value is None:
        return
    match node.type:
        case 'object':
            if not isinstance(value, dict):
                yield _mismatch(node, value, plain, owner)
                return
            yield from _walk_object(node, value, at, plain)
        case 'map':
            if not isinstance(value, dict):
                yield _mismatch(node, value, plain, owner)
                return
            for key, item, repeated in _pairs(value):
                if repeated:
                    yield f'duplicate field "{_join(at, key)}"'
                elif node.items is not None:
                    yield from _walk(node.items, item, _join(at, key), plain, owner)
        case 'array':
            if not isinstance(value, list):
                yield _mismatch(node, value, plain, owner)
                return
            if node.items is not None:
                for i, item in enumerate(value):
                    yield from _walk(node.items, item, f'{at}[{i}]', plain, owner)
        case 'any':
            yield from _walk_any(value, at)
        case _:
            yield from _scalar(node, value, plain, owner)


def _walk_object(node: Node, value: dict[str, Any], at: str, plain: str) -> Iterator[str]:
    for key, item, repeated in _pairs(value):
        where = _join(at, key)
        if repeated:
            yield f'duplicate field "{where}"'
            continue
        child = node.fields.get(key)
        if child is not None:
            yield from _walk(child, item, where, _join(plain, key), node)
        elif not node.preserve_unknown:
            yield f'unknown field "{where}"'
        else:
            yield from _walk_any(item, where)


def _walk_any(value: Any, at: str) -> Iterator[str]:
    """Nothing is known here, but a duplicate is still one."""
    if isinstance(value, Pairs):
        for key, item, repeated in _pairs(value):
            if repeated:
                yield f'duplicate field "{_join(at, key)}"'
            else:
                yield from _walk_any(item, _join(at, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _walk_any(item, f'{at}[{i}]')


def _pairs(value: dict[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """(key, value, whether the key came before), in document order."""
    if not isinstance(value, Pairs):
        for key, item in value.items():
            yield key, item, False
        return
    seen: set[str] = set()
    for key, item in value.pairs:
        yield key, item, key in seen
        seen.add(key)


def _join(at: str, key: str) -> str:
    return f'{at}.{key}' if at else key


def _scalar(node: Node, value: Any, plain: str, owner: Node) -> Iterator[str]:
    match node.type:
        case 'string':
            fits = isinstance(value, str)
        case 'boolean':
            fits = isinstance(value, bool)
        case 'int32' | 'int64':
            low, high = INT_RANGES[node.type]
            fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        case 'number':
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        case 'int-or-string':
            fits = isinstance(value, int | str) and not isinstance(value, bool)
        case 'quantity':
            yield from _quantity(node, value, plain, owner)
            return
        case 'time' | 'micro-time':
            yield from _time(node, value, plain, owner)
            return
        case _:
            fits = isinstance(value, str)
            if fits and not _base64_re.fullmatch(value):
                yield 'illegal base64 data at input byte 0'
    if not fits:
        yield _mismatch(node, value, plain, owner)


def _quantity(node: Node, value: Any, plain: str, owner: Node) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        yield _mismatch(node, value, plain, owner)
        return
    try:
        parse(value)
    except QuantityError as error:
        yield str(error)


def _time(node: Node, value: Any, plain: str, owner: Node) -> Iterator[str]:
    if not isinstance(value, str):
        yield _mismatch(node, value, plain, owner)
        return
    try:
        parse_time(value)
    except ValueError:
        layout = '2006-01-02T15:04:05Z07:00' if node.type == 'time' else '2006-01-02T15:04:05.000000Z07:00'
        yield f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"'


def _prune(node: Node, value: Any) -> None:
    if isinstance(value, dict):
        if node.type == 'object' and not node.preserve_unknown:
            for key in [key for key in value if key not in node.fields]:
                del value[key]
        for key, item in value.items():
            child = node.child(key)
            if child is not None and isinstance(item, dict | list):
                _prune(child, item)
    elif isinstance(value, list) and node.items is not None and node.items.type in {'object', 'map', 'array'}:
        for item in value:
            _prune(node.items, item)


_ZERO: dict[str, Any] = {
    'string': '',
    'int32': 0,
    'int64': 0,
    'number': 0,
    'boolean': False,
    'bytes': '',
    'quantity': '0',
}


_NOT_EMPTY: dict[str, dict[str, int]] = {'array': {'minItems': 1}, 'map': {'minProperties': 1}}


def _omitted(node: Node, key: str, item: Any) -> bool:
    """Whether a Go server would leave the field out: an optional list or map with nothing in it."""
    if item or not isinstance(item, dict | list) or key in node.required:
        return False
    child = node.fields.get(key)
    return child is not None and child.type in _NOT_EMPTY


def _drop_nulls(node: Node, value: Any) -> None:
    if isinstance(value, dict):
        gone = [key for key, item in value.items() if item is None]
        for key in gone:
            child = node.child(key)
            if child is not None and (child.nullable or child.type == 'any'):
                continue
            if node.type == 'map' and child is not None and child.type in _ZERO:
                value[key] = _ZERO[child.type]
            elif node.type != 'any':
                del value[key]
        for key, item in value.items():
            child = node.child(key)
            if child is not None and isinstance(item, dict | list):
                _drop_nulls(child, item)
        for key in [key for key, item in value.items() if _omitted(node, key, item)]:
            del value[key]
    elif isinstance(value, list) and node.items is not None:
        for i, item in enumerate(value):
            if item is None:
                value[i] = {} if node.items.type in {'object', 'map'} else _ZERO.get(node.items.type)
            elif isinstance(item, dict | list):
                _drop_nulls(node.items, item)
