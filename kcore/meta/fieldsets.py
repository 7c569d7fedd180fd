"""Sets of field paths: what a manager owns, and how `managedFields` writes it down.

A path is a tuple of elements in the text form of FieldsV1: `f:name` a field or map key, `k:{"name":"x"}` an item of a
keyed list, `v:"x"` a member of a set. A set holds leaves and the items of keyed lists; objects and lists that the
schema calls atomic are leaves. Source: sigs.k8s.io/structured-merge-diff fieldpath/, typed/tofieldset.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from kcore.meta.schema import ANY, Node

Obj = dict[str, Any]
Path = tuple[str, ...]
Leaves = dict[Path, Any]
"""Every owned path of an object, with its value (None for the item of a list, whose fields are listed themselves)."""

KEY_DEFAULTS: Mapping[str, Any] = {'protocol': 'TCP'}
"""Key fields that may be left out, as in a port without protocol."""
_SELF = '.'


def leaves(obj: Any, schema: Node) -> Leaves:
    return _leaves_at(obj, schema, ())


def _walk(value: Any, node: Node, at: Path, found: Leaves) -> None:
    if isinstance(value, dict) and not (node.atomic and at):
        if not value and at:
            found[at] = value
        for key, item in value.items():
            _walk(item, node.child(key) or ANY, (*at, f'f:{key}'), found)
    elif isinstance(value, list) and node.list_type == 'map' and node.items is not None:
        for item in value:
            where = (*at, item_element(item, node))
            found[where] = None
            _walk(item, node.items, where, found)
    elif isinstance(value, list) and node.list_type == 'set':
        for item in value:
            found[*at, _value_element(item)] = item
    else:
        found[at] = value


def diff(old: Any, new: Any, schema: Node) -> tuple[set[Path], set[Path]]:
    """(paths added or changed, paths removed): as comparing the `leaves` of both, but equal parts are not entered."""
    found: tuple[set[Path], set[Path]] = (set(), set())
    _diff(old, new, schema, (), found)
    return found


def _diff(old: Any, new: Any, node: Node, at: Path, found: tuple[set[Path], set[Path]]) -> None:
    if old == new and type(old) is type(new):
        return
    changed, removed = found
    if isinstance(old, dict) and isinstance(new, dict) and old and new and not (node.atomic and at):
        for key in old.keys() | new.keys():
            child, where = node.child(key) or ANY, (*at, f'f:{key}')
            if key in old and key in new:
                _diff(old[key], new[key], child, where, found)
            elif key in new:
                changed.update(_leaves_at(new[key], child, where))
            else:
                removed.update(_leaves_at(old[key], child, where))
        return
    before, after = _leaves_at(old, node, at), _leaves_at(new, node, at)
    changed.update(p for p, v in after.items() if p not in before or before[p] != v)
    removed.update(before.keys() - after.keys())


def _leaves_at(value: Any, node: Node, at: Path) -> Leaves:
    found: Leaves = {}
    _walk(value, node, at, found)
    return found


def item_element(item: Any, node: Node) -> str:
    """`k:{…}` of one item of a keyed list."""
    fields = item if isinstance(item, dict) else {}
    keys = {key: fields.get(key, KEY_DEFAULTS.get(key)) for key in sorted(node.keys)}
    return f'k:{orjson.dumps(keys).decode()}'


def _value_element(item: Any) -> str:
    return f'v:{orjson.dumps(item).decode()}'


def element_of(item: Any, node: Node) -> str:
    return item_element(item, node) if node.list_type == 'map' else _value_element(item)


def encode(paths: Iterable[Path]) -> dict[str, Any]:
    """FieldsV1 of a set."""
    root: dict[str, Any] = {}
    ends: list[dict[str, Any]] = []
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        ends.append(node)
    for node in ends:
        if node:
            node[_SELF] = {}
    return root


def describe(obj: Obj, schema: Node) -> Obj:
    """FieldsV1 of a whole object: `encode(leaves(obj, schema))` in one go, for what is created every time."""
    return _describe(obj, schema, top=True) or {}


def _describe(value: Any, node: Node, *, top: bool = False) -> Obj | None:
    """None: owns nothing, not even itself."""
    if isinstance(value, dict) and (top or not node.atomic):
        if not value and not top:
            return {}
        found: Obj = {}
        for key in sorted(value):
            below = _describe(value[key], node.child(key) or ANY)
            if below is not None:
                found[f'f:{key}'] = below
        return found or None
    if isinstance(value, list) and node.list_type == 'map' and node.items is not None:
        items = {item_element(item, node): item for item in value}
        if len(items) < len(value):  # two items with one key own what either has
            return encode(_leaves_at(value, node, ()))
        found = {}
        for element in sorted(items):
            below = _describe(items[element], node.items)
            found[element] = {**below, _SELF: {}} if below else {}
        return found or None
    if isinstance(value, list) and node.list_type == 'set':
        return {element: {} for element in sorted(map(_value_element, value))} or None
    return {}


def contains(fields: Any, path: Path) -> bool:
    """Whether the set in a FieldsV1 holds the path."""
    for element in path:
        if not isinstance(fields, dict):
            return False
        fields = fields.get(element)
    return isinstance(fields, dict) and (not fields or _SELF in fields)


def decode(fields: Any) -> set[Path]:
    """The set in a FieldsV1; what is not one is an empty set."""
    found: set[Path] = set()
    _decode(fields, (), found)
    return found


def _decode(fields: Any, at: Path, found: set[Path]) -> None:
    if not isinstance(fields, dict):
        return
    if at and (not fields or _SELF in fields):
        found.add(at)
    for element, inner in fields.items():
        if element != _SELF:
            _decode(inner, (*at, element), found)


def show(path: Path) -> str:
    """As conflicts print it: `.spec.containers[name="x"].image`."""
    return ''.join(_show(element) for element in path)


def _show(element: str) -> str:
    kind, _, rest = element.partition(':')
    match kind:
        case 'f':
            return f'.{rest}'
        case 'k':
            keys = orjson.loads(rest)
            return '[' + ','.join(f'{k}={orjson.dumps(v).decode()}' for k, v in sorted(keys.items())) + ']'
        case 'v':
            return f'[={rest}]'
        case _:
            return f'[{rest}]'


def has_descendant(path: Path, paths: Iterable[Path]) -> bool:
    size = len(path)
    return any(len(p) > size and p[:size] == path for p in paths)
