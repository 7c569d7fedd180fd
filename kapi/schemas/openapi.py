"""OpenAPI v3 component schemas, from the same data that validates.

kubectl reads from them which GVK a path serves, how strategic merge joins lists, and what `explain` shows. What it
shows of fields stands in `descriptions.json`: by the last part of a definition's name, then by field; "" is the
definition itself, `*` any definition. The words are our own.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

import orjson

from kapi.schemas.builtin import component_names, definitions
from kcore.meta.schema import Node

Json = dict[str, Any]
LIST_META = 'io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta'
_PREFIX = '#/components/schemas/'
_PLAIN: dict[str, Json] = {
    'string': {'type': 'string'},
    'boolean': {'type': 'boolean'},
    'int32': {'type': 'integer', 'format': 'int32'},
    'int64': {'type': 'integer', 'format': 'int64'},
    'number': {'type': 'number', 'format': 'double'},
    'bytes': {'type': 'string', 'format': 'byte'},
    'time': {'type': 'string', 'format': 'date-time'},
    'micro-time': {'type': 'string', 'format': 'date-time'},
    'quantity': {'oneOf': [{'type': 'string'}, {'type': 'number'}]},
    'int-or-string': {'format': 'int-or-string', 'oneOf': [{'type': 'integer'}, {'type': 'string'}]},
    # Clients' templates take an empty schema for a missing one.
    'any': {'description': 'Any JSON value.'},
}


@cache
def descriptions() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = orjson.loads(
        (resources.files('kapi.schemas') / 'descriptions.json').read_bytes()
    )
    return found


def _described(definition: str, field: str = '') -> str:
    """What is said of a definition or of its field; empty when nothing is."""
    known, own = descriptions(), definition.rpartition('.')[2]
    return known.get(own, {}).get(field) or (known['*'].get(field, '') if field else '')


def components(group: str, version: str, kinds: Iterable[str] | None = None) -> dict[str, Json]:
    """`components.schemas` of one group and version: its kinds, their lists, and all they refer to.

    `kinds` limits it to those that are served; default is every kind that the data knows in this group.
    """
    names = component_names(group, version)
    wanted = names if kinds is None else {k: names[k] for k in kinds if k in names}
    found: dict[str, Json] = {}
    for kind, name in wanted.items():
        _collect(definitions().node(name), found)
        found[name]['x-kubernetes-group-version-kind'] = [{'group': group, 'version': version, 'kind': kind}]
        if 'metadata' in found[name].get('properties', {}):
            found[f'{name}List'] = _list(name, group, version, kind)
    return dict(sorted(found.items()))


def closure(name: str) -> dict[str, Json]:
    """A built-in definition and all that it refers to."""
    found: dict[str, Json] = {}
    _collect(definitions().node(name), found)
    return found


def _list(name: str, group: str, version: str, kind: str) -> Json:
    return {
        'type': 'object',
        'required': ['items'],
        'properties': {
            'apiVersion': {'type': 'string'},
            'kind': {'type': 'string'},
            'metadata': {'type': 'object'},
            'items': {'type': 'array', 'items': {'$ref': _PREFIX + name}},
        },
        'x-kubernetes-group-version-kind': [{'group': group, 'version': version, 'kind': f'{kind}List'}],
    }


def _collect(root: Node, found: dict[str, Json]) -> None:
    todo = [root]
    while todo:
        node = todo.pop()
        if node.name in found:
            continue
        schema: Json = {'type': 'object'}
        found[node.name] = schema
        if node.required:
            schema['required'] = list(node.required)
        said = _described(node.name)
        if said:
            schema['description'] = said
        schema['properties'] = {
            key: _with_description(render(child, todo), _described(node.name, key))
            for key, child in sorted(node.fields.items())
        }
        if node.atomic:
            schema['x-kubernetes-map-type'] = 'atomic'


def _with_description(shape: Json, text: str) -> Json:
    if not text:
        return shape
    if '$ref' in shape:
        return {'allOf': [shape], 'description': text}
    return {**shape, 'description': text}


def render(node: Node, todo: list[Node] | None = None) -> Json:
    """One field; named objects become references, and are added to `todo`."""
    match node.type:
        case 'array':
            shape: Json = {'type': 'array', 'items': render(node.items, todo) if node.items else dict(_PLAIN['any'])}
            shape['x-kubernetes-list-type'] = node.list_type
            if node.keys:
                shape['x-kubernetes-list-map-keys'] = list(node.keys)
        case 'map':
            shape = {
                'type': 'object',
                'additionalProperties': render(node.items, todo) if node.items else dict(_PLAIN['any']),
            }
        case 'object' if node.name:
            if todo is not None:
                todo.append(node)
            shape = {'$ref': _PREFIX + node.name}
        case 'object':
            shape = {'type': 'object', 'properties': {k: render(v, todo) for k, v in sorted(node.fields.items())}}
            if node.preserve_unknown:
                shape['x-kubernetes-preserve-unknown-fields'] = True
        case _:
            shape = dict(_PLAIN[node.type])
    extra: Json = {}
    if node.merge_key:
        extra['x-kubernetes-patch-merge-key'] = node.merge_key
    if node.strategies:
        extra['x-kubernetes-patch-strategy'] = ','.join(node.strategies)
    if '$ref' in shape and extra:
        return {'allOf': [shape], **extra}
    return {**shape, **extra}
