"""OpenAPI v2, made from the v3 documents: as JSON, and as the gnostic protobuf that Go clients ask for.

kubectl up to 1.28 knows no other schema, later ones come here when v3 fails them, and generators of clients read the
JSON. Only the fields that clients look at go into the protobuf: definitions with merge keys, and operations with their
kind, media types and query parameters. Field numbers: google/gnostic openapiv2/OpenAPIv2.proto. What v2 cannot say of
a custom resource is left out as in apiextensions-apiserver pkg/controller/openapi/v2/conversion.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

Obj = dict[str, Any]

MEDIA_TYPE = 'application/com.github.proto-openapi.spec.v2@v1.0+protobuf'
SENT_TYPE = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf'
"""What answers say: Go's media type parser does not take the `@`."""
_METHODS = {'get': 2, 'put': 3, 'post': 4, 'delete': 5, 'patch': 8}
_REF = '#/components/schemas/'
_BYTES = 2
_ONLY_V3 = frozenset(('allOf', 'anyOf', 'oneOf', 'not', 'nullable'))
_SHAPE = frozenset(('type', 'properties', 'items', 'additionalProperties', 'required'))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(body)) + body


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode())


def _named(name: str, value: bytes) -> bytes:
    """One entry of gnostic's ordered maps."""
    return _text(1, name) + _message(2, value)


def _extensions(number: int, obj: Mapping[str, Any]) -> bytes:
    """`x-…` members; their values are YAML, which JSON is."""
    found = ((k, v) for k, v in obj.items() if k.startswith('x-'))
    return b''.join(_message(number, _named(k, _text(2, orjson.dumps(v).decode() + '\n'))) for k, v in found)


def _schema(schema: Mapping[str, Any]) -> bytes:
    """A Schema message. A reference with siblings keeps only the reference, as the protobuf readers demand."""
    if isinstance(schema.get('$ref'), str):
        return _text(1, schema['$ref'])
    out = b''
    if 'format' in schema:
        out += _text(2, schema['format'])
    if 'description' in schema:
        out += _text(4, schema['description'])
    out += b''.join(_text(19, name) for name in schema.get('required', ()))
    if isinstance(schema.get('additionalProperties'), dict):
        out += _message(21, _message(1, _schema(schema['additionalProperties'])))
    if 'type' in schema:
        out += _message(22, _text(1, schema['type']))
    if 'items' in schema:
        out += _message(23, _message(1, _schema(schema['items'])))
    if schema.get('properties'):
        entries = (_message(1, _named(k, _schema(v))) for k, v in schema['properties'].items())
        out += _message(25, b''.join(entries))
    return out + _extensions(31, schema)


def _parameter(parameter: Mapping[str, Any]) -> bytes:
    if parameter['in'] == 'body':
        return b''
    number, kind = (3, 6) if parameter['in'] == 'query' else (4, 5)
    body = _text(2, parameter['in']) + _text(4, parameter['name']) + _text(kind, parameter['type'])
    return _message(1, _message(2, _message(number, body)))


def _parameters(number: int, parameters: Iterable[Mapping[str, Any]]) -> bytes:
    return b''.join(_message(number, found) for p in parameters if (found := _parameter(p)))


def _operation(operation: Mapping[str, Any]) -> bytes:
    out = b''.join(_text(7, media) for media in operation.get('consumes', ()))
    out += _parameters(8, operation.get('parameters', ()))
    out += _message(9, _message(1, _named('200', _message(1, _text(1, 'OK')))))
    return out + _extensions(13, operation)


def _path(item: Mapping[str, Any]) -> bytes:
    out = b''.join(_message(number, _operation(item[m])) for m, number in _METHODS.items() if m in item)
    return out + _parameters(9, item.get('parameters', ()))


def encode(swagger: Obj) -> bytes:
    """`swagger` as gnostic's protobuf."""
    info = _text(1, swagger['info']['title']) + _text(2, swagger['info']['version'])
    listed = b''.join(_message(2, _named(k, _path(v))) for k, v in swagger['paths'].items())
    defined = b''.join(_message(1, _named(k, _schema(v))) for k, v in swagger['definitions'].items())
    return _text(1, '2.0') + _message(2, info) + _message(8, listed) + _message(9, defined)


# — from v3 —


def swagger(documents: Iterable[Obj]) -> Obj:
    """One v2 document out of the v3 documents of all group-versions."""
    paths: dict[str, Obj] = {}
    definitions: dict[str, Obj] = {}
    info: Obj = {}
    for document in documents:
        info = document['info']
        paths |= document['paths']
        definitions |= document['components']['schemas']
    return {
        'swagger': '2.0',
        'info': info,
        'paths': {path: _v2_path(item) for path, item in sorted(paths.items())},
        'definitions': {name: v2_schema(schema) for name, schema in sorted(definitions.items())},
    }


def v2_schema(schema: Mapping[str, Any]) -> Obj:
    """One schema in v2's words, without what v2 has none for."""
    ref = next((s['$ref'] for s in (schema, *schema.get('allOf', ())) if isinstance(s.get('$ref'), str)), None)
    found = {k: v for k, v in schema.items() if k not in _ONLY_V3}
    if ref is not None:
        return {**found, '$ref': ref.replace(_REF, '#/definitions/')}
    if schema.get('x-kubernetes-preserve-unknown-fields') or schema.get('nullable'):
        kept = set() if schema.get('nullable') else {'type'}
        found = {k: v for k, v in found.items() if k not in _SHAPE - kept}
    elif schema.get('x-kubernetes-int-or-string') or ('oneOf' in schema and 'type' not in schema):
        found = {**found, 'type': 'string'}
    if 'properties' in found:
        found['properties'] = {k: v2_schema(v) for k, v in found['properties'].items()}
    for word in ('items', 'additionalProperties'):
        if isinstance(found.get(word), dict):
            found[word] = v2_schema(found[word])
    return found


def _v2_path(item: Obj) -> Obj:
    return {k: [_v2_parameter(p) for p in v] if k == 'parameters' else _v2_operation(v) for k, v in item.items()}


def _v2_parameter(parameter: Obj) -> Obj:
    return {**{k: v for k, v in parameter.items() if k != 'schema'}, **parameter['schema']}


def _v2_operation(operation: Obj) -> Obj:
    found = {k: v for k, v in operation.items() if k not in {'requestBody', 'responses', 'parameters'}}
    found['parameters'] = [_v2_parameter(p) for p in operation.get('parameters', ())]
    content = operation.get('requestBody', {}).get('content', {})
    if content:
        schema = v2_schema(next(iter(content.values()))['schema'])
        found['parameters'].insert(0, {'name': 'body', 'in': 'body', 'required': True, 'schema': schema})
        found['consumes'] = list(content)
    found['produces'] = ['application/json', 'application/yaml']
    ok = operation['responses']['200']
    answer = v2_schema(ok['content']['application/json']['schema'])
    return {**found, 'responses': {'200': {'description': ok['description'], 'schema': answer}}}
