"""The structural schema of a custom resource at work: unknown fields, pruning, nulls, defaults, and its `Node` graph.

The schema stays what the definition says, a map in JSON-schema words; being *structural* (checked when the definition
is written, see `kapi.crd.checks`) means that every field's shape stands outside of `anyOf` and the like, so one plain
descent finds it. Source: apiextensions-apiserver pkg/apiserver/schema/{pruning,defaulting,objectmeta}.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

import orjson

from kapi.schemas.builtin import definitions
from kapi.schemas.decode import DecodeError, StrictError, Validation
from kapi.schemas.schema import STRICT_ERRORS_MAX, Pairs, Schema
from kcore.meta.schema import Node, NodeType

Obj = dict[str, Any]
Props = dict[str, Any]
"""A JSONSchemaProps as the definition spells it."""

PRESERVE = 'x-kubernetes-preserve-unknown-fields'
EMBEDDED = 'x-kubernetes-embedded-resource'
INT_OR_STRING = 'x-kubernetes-int-or-string'
LIST_TYPE = 'x-kubernetes-list-type'
LIST_KEYS = 'x-kubernetes-list-map-keys'
MAP_TYPE = 'x-kubernetes-map-type'
OBJECT_META = 'io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta'
_TYPE_META = ('apiVersion', 'kind', 'metadata')
_SCALARS: dict[str, NodeType] = {'string': 'string', 'boolean': 'boolean', 'integer': 'int64', 'number': 'number'}


@cache
def object_meta() -> Schema:
    return Schema(definitions().node(OBJECT_META), 'v1', 'ObjectMeta')


class Structural:
    """One version of a definition's schema."""

    def __init__(self, props: Props, version: str, kind: str) -> None:
        self.props = props
        self.version = version
        self.kind = kind
        self.node = node_of(props, root=True)
        self._has_defaults = _mentions(props, 'default')

    def conform(self, obj: Obj, validation: Validation, told: str = '') -> tuple[Obj, list[str]]:
        """The object without unknown fields and out-of-place nulls, and warnings for its sender.

        `told` is what a strict parser found wrong before.
        Wrong types below `metadata` are refused here; elsewhere they are the validation's business, as upstream.
        Raises DecodeError, StrictError.
        """
        strict = [told] if told else []
        try:
            metadata = obj.get('metadata')
            if isinstance(metadata, dict) and (isinstance(obj, Pairs) or not object_meta().is_valid(metadata)):
                found = object_meta().inspect(metadata)
                if found.type_error:
                    raise DecodeError(
                        self._cannot(found.type_error.replace('field ', f'field {self.kind}.metadata.', 1))
                    )
                strict += [_below('metadata', text) for text in found.strict]
            strict += islice(unknown(self.props, obj, '', root=True), STRICT_ERRORS_MAX)
            if strict and validation == 'Strict':
                raise StrictError(self._cannot(f'strict decoding error: {", ".join(strict)}'), strict)
            plain: Obj = orjson.loads(orjson.dumps(obj)) if isinstance(obj, Pairs) else obj
            if isinstance(plain.get('metadata'), dict):
                object_meta().prune(plain['metadata'])
                object_meta().drop_nulls(plain['metadata'])
            if strict:
                self.prune(plain)
            drop_nulls(self.props, plain)
        except RecursionError:
            raise DecodeError(self._cannot('json: exceeded max depth')) from None
        return plain, strict if validation == 'Warn' else []

    def prune(self, obj: Obj) -> None:
        prune(self.props, obj, root=True)

    def default(self, obj: Obj) -> None:
        if self._has_defaults:
            default(self.props, obj)

    def settled(self, obj: Obj) -> Obj:
        """`obj` as it is read from storage: pruned and with defaults. The same object when nothing is to do."""
        if not self._has_defaults and next(iter(unknown(self.props, obj, '', root=True)), None) is None:
            return obj
        copied: Obj = orjson.loads(orjson.dumps(obj))
        self.prune(copied)
        drop_nulls(self.props, copied)
        self.default(copied)
        return obj if copied == obj else copied

    def _cannot(self, why: str) -> str:
        return f'{self.kind} in version "{self.version}" cannot be handled as a {self.kind}: {why}'


def _below(prefix: str, text: str) -> str:
    return text.replace('"', f'"{prefix}.', 1)


def _mentions(props: Any, word: str) -> bool:
    """Whether a schema below `props` has the keyword `word`."""
    return isinstance(props, dict) and (word in props or any(_mentions(c, word) for c in children(props)))


def children(props: Props) -> Iterator[Props]:
    """The schemas one level below, of fields, values and items."""
    yield from (p for p in (props.get('properties') or {}).values() if isinstance(p, dict))
    for word in ('additionalProperties', 'items'):
        if isinstance(props.get(word), dict):
            yield props[word]


def child(props: Props, key: str) -> Props | None:
    """Schema of the value under `key`; None when nothing is known of it."""
    found = (props.get('properties') or {}).get(key)
    if isinstance(found, dict):
        return found
    more = props.get('additionalProperties')
    return more if isinstance(more, dict) else None


def allowed(props: Props, key: str, *, root: bool) -> bool:
    """Whether pruning leaves `key` alone. Absent `properties` allow nothing, as upstream."""
    return (
        key in (props.get('properties') or {})
        or bool(props.get('additionalProperties'))
        or bool(props.get(PRESERVE))
        or ((root or bool(props.get(EMBEDDED))) and key in _TYPE_META)
    )


def unknown(props: Props | None, value: Any, at: str, *, root: bool = False) -> Iterator[str]:
    """`unknown field "…"` and `duplicate field "…"`, in document order. Under no schema only duplicates count."""
    if isinstance(value, dict):
        seen: set[str] = set()
        for key, item in value.pairs if isinstance(value, Pairs) else value.items():
            where = f'{at}.{key}' if at else key
            if key in seen:
                yield f'duplicate field "{where}"'
                continue
            seen.add(key)
            if props is not None and not allowed(props, key, root=root):
                yield f'unknown field "{where}"'
            elif key == 'metadata' and props is not None and (root or props.get(EMBEDDED)):
                if not root and isinstance(item, dict):
                    yield from (_below(where, text) for text in object_meta().inspect(item).strict)
            elif isinstance(item, dict | list):
                yield from unknown(child(props, key) if props is not None else None, item, where)
    elif isinstance(value, list):
        items = props.get('items') if props is not None else None
        for i, item in enumerate(value):
            if isinstance(item, dict | list):
                yield from unknown(items if isinstance(items, dict) else None, item, f'{at}[{i}]')


def prune(props: Props, value: Any, *, root: bool = False) -> None:
    """Remove what the schema does not know, in place. The root's metadata is left alone."""
    if isinstance(value, dict):
        for key in [k for k in value if not allowed(props, k, root=root)]:
            del value[key]
        for key, item in value.items():
            if key == 'metadata' and (root or props.get(EMBEDDED)):
                if not root and isinstance(item, dict):
                    object_meta().prune(item)
                continue
            below = child(props, key)
            if below is not None and isinstance(item, dict | list):
                prune(below, item)
    elif isinstance(value, list) and isinstance(props.get('items'), dict):
        for item in value:
            prune(props['items'], item)


def drop_nulls(props: Props, value: Any) -> None:
    """Remove nulls of fields that are not nullable, in place; a default may then take their place."""
    if isinstance(value, dict):
        gone = [k for k, v in value.items() if v is None and (c := child(props, k)) is not None and not nullable(c)]
        for key in gone:
            del value[key]
        for key, item in value.items():
            below = child(props, key)
            if below is not None and isinstance(item, dict | list):
                drop_nulls(below, item)
    elif isinstance(value, list) and isinstance(props.get('items'), dict):
        for item in value:
            drop_nulls(props['items'], item)


def nullable(props: Props) -> bool:
    """Whether a null may stay: it is allowed, or nothing is said about the type."""
    return bool(props.get('nullable')) or not (props.get('type') or props.get(INT_OR_STRING))


def default(props: Props, value: Any) -> None:
    """Fill in defaults, in place, outside in, so that a default object gets its own fields' defaults."""
    if isinstance(value, dict):
        for key, below in (props.get('properties') or {}).items():
            if 'default' in below and key not in value and below['default'] is not None:
                value[key] = orjson.loads(orjson.dumps(below['default']))
        for key, item in value.items():
            known = child(props, key)
            if known is not None and isinstance(item, dict | list):
                default(known, item)
    elif isinstance(value, list) and isinstance(props.get('items'), dict):
        for item in value:
            default(props['items'], item)


def node_of(props: Props, *, root: bool = False) -> Node:
    """The graph that server-side apply and `managedFields` read."""
    kind = props.get('type')
    if props.get(INT_OR_STRING):
        return Node('int-or-string', nullable=bool(props.get('nullable')))
    if kind == 'array':
        node = Node('array', items=node_of(props['items']) if isinstance(props.get('items'), dict) else None)
        node.list_type = props.get(LIST_TYPE) or 'atomic'
        node.keys = tuple(props.get(LIST_KEYS) or ())
    elif kind == 'object' or root:
        node = _object_node(props, root=root)
        node.atomic = props.get(MAP_TYPE) == 'atomic'
    else:
        node = Node(_SCALARS.get(str(kind), 'any'))
        node.preserve_unknown = node.type == 'any'
    node.nullable = bool(props.get('nullable'))
    return node


def _object_node(props: Props, *, root: bool) -> Node:
    more = props.get('additionalProperties')
    if isinstance(more, dict) and not props.get('properties'):
        return Node('map', items=node_of(more))
    embedded = root or bool(props.get(EMBEDDED))
    fields = {key: node_of(value) for key, value in (props.get('properties') or {}).items()}
    if embedded:
        fields |= {'apiVersion': Node('string'), 'kind': Node('string'), 'metadata': object_meta().root}
    return Node(
        'object',
        fields=fields,
        required=tuple(props.get('required') or ()),
        preserve_unknown=bool(props.get(PRESERVE) or more),
        embedded=embedded,
    )
