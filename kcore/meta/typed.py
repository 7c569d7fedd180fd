"""Whether a configuration fits the schema as server-side apply demands: nothing is pruned there, everything is named.

Texts and paths are upstream's, which people search for: `.spec.foo: field not declared in schema`.
Source: sigs.k8s.io/structured-merge-diff typed/{validate,helpers}.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kcore.meta.fieldsets import KEY_DEFAULTS, element_of, show
from kcore.meta.schema import ANY, Node

_NUMERIC = frozenset(('int32', 'int64', 'number'))
_TEXT = frozenset(('string', 'bytes'))
_GO_TYPES = {str: 'string', bool: 'bool', int: 'int64', float: 'float64'}


def misfits(obj: Any, schema: Node) -> list[str]:
    """One sentence per value that the schema has no place for; none when `obj` may be merged."""
    return list(_walk(obj, schema, ''))


def joined(errors: list[str]) -> str:
    """As one message."""
    return errors[0] if len(errors) == 1 else '\n  '.join(('errors:', *errors))


def _walk(value: Any, node: Node, at: str) -> Iterator[str]:
    if value is None or node.type == 'any':
        return
    match node.type:
        case 'object' | 'map':
            if isinstance(value, dict):
                yield from _fields(value, node, at)
            else:
                yield f'{at}: expected map, got &{{{_go(value)}}}'
        case 'array':
            if isinstance(value, list):
                yield from _items(value, node, at)
            else:
                yield f'{at}: expected list, got &{{{_go(value)}}}'
        case _:
            yield from _scalar(value, node, at)


def _fields(value: dict[str, Any], node: Node, at: str) -> Iterator[str]:
    for key, item in value.items():
        child = node.child(key)
        if child is not None:
            yield from _walk(item, child, f'{at}.{key}')
        elif node.type == 'object' and not node.preserve_unknown:
            yield f'{at}.{key}: field not declared in schema'


def _items(value: list[Any], node: Node, at: str) -> Iterator[str]:
    child = node.items or ANY
    seen: set[str] = set()
    for i, item in enumerate(value):
        where = f'{at}[{i}]'
        if node.list_type != 'atomic':
            wrong = _unkeyed(item, node)
            if wrong:
                yield f'{at}: element {i}: {wrong}'
                continue
            element = element_of(item, node)
            if element in seen:
                yield f'{at}: duplicate entries for key {show((element,))}'
                continue
            seen.add(element)
            where = f'{at}{show((element,))}'
        yield from _walk(item, child, where)


def _unkeyed(item: Any, node: Node) -> str:
    """Why an item of a list that is a map or a set cannot be told from its neighbours."""
    if node.list_type == 'set':
        return "associative list without keys has an element that's a map type" if isinstance(item, dict) else ''
    if not isinstance(item, dict):
        return 'associative list with keys may not have non-map elements'
    if node.keys and all(item.get(key, KEY_DEFAULTS.get(key)) is None for key in node.keys):
        keys = ' '.join(f'"{key}"' for key in node.keys)
        return (
            f'associative list with keys has an element that omits all key fields [{keys}] '
            "(and doesn't have default values for any key fields)"
        )
    return ''


def _scalar(value: Any, node: Node, at: str) -> Iterator[str]:
    if node.type in _NUMERIC and (isinstance(value, bool) or not isinstance(value, int | float)):
        yield f'{at}: expected numeric (int or float), got {_GO_TYPES.get(type(value), _container(value))}'
    elif node.type in _TEXT and not isinstance(value, str):
        yield f'{at}: expected string, got &value.valueUnstructured{{Value:{_go(value)}}}'
    elif node.type == 'boolean' and not isinstance(value, bool):
        yield f'{at}: expected boolean, got &{{{_go(value)}}}'
    elif isinstance(value, dict | list):
        yield f'{at}: expected any scalar, got &{{{_go(value)}}}'


def _container(value: Any) -> str:
    return '[]interface {}' if isinstance(value, list) else 'map[string]interface {}'


def _go(value: Any) -> str:
    """A value as Go's %v prints it."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return 'map[' + ' '.join(f'{k}:{_go(v)}' for k, v in sorted(value.items())) + ']'
        case list():
            return '[' + ' '.join(_go(v) for v in value) + ']'
        case None:
            return '<nil>'
        case _:
            return str(value)
