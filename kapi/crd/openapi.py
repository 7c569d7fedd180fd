"""Custom resources in OpenAPI: their own schema, completed by what every object has.

Source: apiextensions-apiserver pkg/controller/openapi/builder/builder.go.
"""

from __future__ import annotations

from typing import Any

from kapi.registry.kind import Kind
from kapi.schemas.openapi import closure
from kapi.schemas.structural import OBJECT_META, Props
from kcore.meta.gvk import Resource

Json = dict[str, Any]
_REF = '#/components/schemas/'
LIST_META = 'io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta'
_API_VERSION = {'type': 'string', 'description': 'Group and version of the schema that this object follows.'}
_KIND = {'type': 'string', 'description': 'Name of the type that this object is of.'}


def component_name(resource: Resource) -> str:
    """`com.example.stable.v1.CronTab` of `stable.example.com/v1` CronTab."""
    return '.'.join((*reversed(resource.group.split('.')), resource.version, resource.kind))


def components(kind: Kind, props: Props) -> dict[str, Json]:
    """The component schemas of one served version: object, list, metadata."""
    r = kind.resource
    name = component_name(r)
    metadata: Json = {
        'allOf': [{'$ref': _REF + OBJECT_META}],
        'description': 'What every object has: name, labels, owners.',
    }
    own = dict(props)
    own['type'] = 'object'
    own['properties'] = {
        'apiVersion': _API_VERSION, 'kind': _KIND, **(props.get('properties') or {}), 'metadata': metadata
    }  # fmt: skip
    own['x-kubernetes-group-version-kind'] = [{'group': r.group, 'version': r.version, 'kind': r.kind}]
    listed: Json = {
        'type': 'object',
        'description': f'A list of {r.kind} objects.',
        'required': ['items'],
        'properties': {
            'apiVersion': _API_VERSION,
            'kind': _KIND,
            'metadata': {'type': 'object'},
            'items': {'type': 'array', 'items': {'$ref': _REF + name}},
        },
        'x-kubernetes-group-version-kind': [{'group': r.group, 'version': r.version, 'kind': kind.list_kind}],
    }
    return {**closure(OBJECT_META), name: own, f'{name}List': listed}
