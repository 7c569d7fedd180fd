"""OpenAPI v2 in the one form that clients read: gnostic's protobuf, made from the v3 documents.

kubectl up to 1.28 knows no other schema, and later ones come here when v3 fails them. Only the fields that clients
look at are written: definitions with merge keys, and operations with their kind, media types and query parameters.
Field numbers: google/gnostic openapiv2/OpenAPIv2.proto.
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
    """A Schema message. A reference with siblings keeps only the reference, as v2 demands."""
    for inner in schema.get('allOf', ()):
        return _schema(inner)
    if '$ref' in schema:
        return _text(1, schema['$ref'].replace(_REF, '#/definitions/'))
    kind = schema.get('type', 'string' if 'oneOf' in schema else '')
    out = b''
    if 'format' in schema:
        out += _text(2, schema['format'])
    if 'description' in schema:
        out += _text(4, schema['description'])
    out += b''.join(_text(19, name) for name in schema.get('required', ()))
    if isinstance(schema.get('additionalProperties'), dict):
        out += _message(21, _message(1, _schema(schema['additionalProperties'])))
    if kind:
        out += _message(22, _text(1, kind))
    if 'items' in schema:
        out += _message(23, _message(1, _schema(schema['items'])))
    if schema.get('properties'):
        entries = (_message(1, _named(k, _schema(v))) for k, v in schema['properties'].items())
        out += _message(25, b''.join(entries))
    return out + _extensions(31, schema)


def _parameter(parameter: Mapping[str, Any]) -> bytes:
    number, kind = (3, 6) if parameter['in'] == 'query' else (4, 5)
    body = _text(2, parameter['in']) + _text(4, parameter['name']) + _text(kind, parameter['schema']['type'])
    return _message(1, _message(2, _message(number, body)))


def _operation(operation: Mapping[str, Any]) -> bytes:
    content = operation.get('requestBody', {}).get('content', {})
    out = b''.join(_text(7, media) for media in content)
    out += b''.join(_message(8, _parameter(p)) for p in operation.get('parameters', ()))
    out += _message(9, _message(1, _named('200', _message(1, _text(1, 'OK')))))
    return out + _extensions(13, operation)


def _path(item: Mapping[str, Any]) -> bytes:
    out = b''.join(_message(number, _operation(item[m])) for m, number in _METHODS.items() if m in item)
    return out + b''.join(_message(9, _parameter(p)) for p in item.get('parameters', ()))


def encode(documents: Iterable[Obj]) -> bytes:
    """One v2 document out of the v3 documents of all group-versions."""
    paths: dict[str, Obj] = {}
    definitions: dict[str, Obj] = {}
    for document in documents:
        paths |= document['paths']
        definitions |= document['components']['schemas']
    info = _text(1, 'Kubernetes') + _text(2, 'v1.33.1')
    listed = b''.join(_message(2, _named(k, _path(v))) for k, v in sorted(paths.items()))
    defined = b''.join(_message(1, _named(k, _schema(v))) for k, v in sorted(definitions.items()))
    return _text(1, '2.0') + _message(2, info) + _message(8, listed) + _message(9, defined)
