"""Objects as protobuf bodies, as a Go client sends them: the reverse of `kapi.schemas.protobuf`."""

from __future__ import annotations

import base64
import struct
from datetime import datetime
from typing import Any

import orjson

from kapi.schemas.protobuf import MAGIC, _message_name, _table

Obj = dict[str, Any]


def encode(obj: Obj) -> bytes:
    """A whole body: the envelope and the object without its type."""
    rest = {k: v for k, v in obj.items() if k not in {'apiVersion', 'kind'}}
    kind = _bytes(1, obj['apiVersion'].encode()) + _bytes(2, obj['kind'].encode())
    return MAGIC + _bytes(1, kind) + _bytes(2, _message(_message_name(obj['apiVersion'], obj['kind']), rest))


def _message(name: str, obj: Obj) -> bytes:
    out = b''
    for number, (json_name, shape, flags) in sorted(_table()[1][name].items()):
        if not json_name:  # its fields stand in the message around it
            inner = _message(shape[1:], {k: v for k, v in obj.items() if k in _names(shape[1:])})
            out += _bytes(number, inner) if inner else b''
        elif json_name in obj:
            out += _field(number, shape, flags, obj[json_name])
    strange = set(obj) - _names(name) - {'apiVersion', 'kind'}
    assert not strange, f'{name} has no field {strange}'
    return out


def _names(message: str) -> set[str]:
    """JSON fields of a message and of what it inlines."""
    found: set[str] = set()
    for json_name, shape, _ in _table()[1][message].values():
        found |= {json_name} if json_name else _names(shape[1:])
    return found


def _field(number: int, shape: str, flags: str, value: Any) -> bytes:
    if 'm' in flags:
        entries = (_bytes(1, k.encode()) + _one(2, shape, v) for k, v in value.items())
        return b''.join(_bytes(number, entry) for entry in entries)
    if 'r' in flags:
        return b''.join(_one(number, shape, item) for item in value)
    return _one(number, shape, value)


def _one(number: int, shape: str, value: Any) -> bytes:
    match shape:
        case 'v' | 'b':
            return _varint(number << 3) + _varint(int(value))
        case 'd' | 'f':
            return _varint(number << 3 | (1 if shape == 'd' else 5)) + struct.pack(f'<{shape}', value)
        case 's':
            return _bytes(number, value.encode())
        case 'y':
            return _bytes(number, base64.b64decode(value))
        case 'L':
            return _bytes(number, b''.join(_bytes(1, v.encode()) for v in value))
        case 'T' | 'M':
            moment = datetime.fromisoformat(value)
            nanos = _one(2, 'v', moment.microsecond * 1000) if moment.microsecond else b''
            return _bytes(number, _one(1, 'v', int(moment.timestamp())) + nanos)
        case 'Q':
            return _bytes(number, _bytes(1, value.encode()))
        case 'I':
            number_or_text = _one(2, 'v', value) if isinstance(value, int) else _one(1, 'v', 1) + _one(3, 's', value)
            return _bytes(number, number_or_text)
        case _ if shape[0] == '@':
            return _bytes(number, _message(shape[1:], value))
    return _bytes(number, _bytes(1, orjson.dumps(value)))


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
