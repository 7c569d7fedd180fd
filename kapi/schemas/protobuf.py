"""Protobuf bodies in: `application/vnd.kubernetes.protobuf` → the object that JSON would have carried.

Clients built on client-go ≥ 0.32 send these for built-in kinds and do not fall back when refused; answers may stay
JSON. The envelope is `k8s\\0` and a `runtime.Unknown{1 typeMeta{1 apiVersion, 2 kind}, 2 raw, 3 encoding, 4 type}`.

Table (`protobuf.json.gz`): message → field number → [JSON name, shape, flags]. An empty name is a field that JSON
inlines. Shapes: `v` varint, `b` bool, `s` string, `y` bytes, `d`/`f` float, `T` Time, `M` MicroTime, `Q` Quantity, `I`
IntOrString, `R` raw JSON, `L` list of strings, `@message`. Flags: `r` repeated, `m` map, `k` keep a zero. gogo writes
every scalar that is no pointer, so a zero stands for "absent" unless the field is a pointer or required.

A field that is not in the table is skipped when it holds a zero, as a newer client's would; otherwise the body is
refused, because accepting it would lose data.
"""

from __future__ import annotations

import base64
import gzip
import struct
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Any

import orjson

from kcore.meta.times import format_micro, format_time

MAGIC = b'k8s\x00'
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VARINT_BYTES_MAX = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Table = dict[str, dict[str, list[str]]]


class ProtobufError(ValueError):
    """The body is not what it says, or of a kind that the table does not know (415)."""


@cache
def _table() -> tuple[dict[str, str], dict[str, dict[int, tuple[str, str, str]]]]:
    raw = orjson.loads(gzip.decompress((resources.files('kapi.schemas') / 'protobuf.json.gz').read_bytes()))
    kinds: dict[str, str] = raw['kinds']
    table: Table = raw['messages']
    return kinds, {m: {int(n): (e[0], e[1], e[2]) for n, e in fields.items()} for m, fields in table.items()}


def decode(body: bytes) -> dict[str, Any]:
    """The object, with apiVersion and kind from the envelope. Raises ProtobufError."""
    if not body.startswith(MAGIC):
        raise ProtobufError('the body is not a Kubernetes protobuf message: its first bytes are wrong')
    try:
        envelope = {number: value for number, _, value in _fields(body[len(MAGIC) :])}
        type_meta = {number: value for number, _, value in _fields(_as_bytes(envelope.get(1, b'')))}
        api_version, kind = _text(type_meta.get(1, b'')), _text(type_meta.get(2, b''))
        if envelope.get(3):
            raise ProtobufError(f'content encoding {_text(envelope[3])!r} is not understood')
        obj = _message(_message_name(api_version, kind), _as_bytes(envelope.get(2, b'')))
    except RecursionError:
        raise ProtobufError('the body is nested too deeply') from None
    return {'kind': kind, 'apiVersion': api_version, **obj}


def _message_name(api_version: str, kind: str) -> str:
    group, slash, version = api_version.rpartition('/')
    kinds, _ = _table()
    # Typed clients label the options of a deletion with the version of what they delete.
    key = '/v1/DeleteOptions' if kind == 'DeleteOptions' else f'{group if slash else ""}/{version}/{kind}'
    found = kinds.get(key)
    if found is None:
        raise ProtobufError(f'no protobuf definition is known for {api_version} {kind}')
    return found


def _fields(data: bytes) -> list[tuple[int, int, Any]]:
    """(number, wire type, value) of every field; varints as unsigned int, the rest as bytes."""
    found: list[tuple[int, int, Any]] = []
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value: Any
            value, at = _varint(data, at)
        else:
            if wire == _BYTES:
                size, at = _varint(data, at)
            elif wire in {_FIXED64, _FIXED32}:
                size = 8 if wire == _FIXED64 else 4
            else:
                raise ProtobufError(f'wire type {wire} is not understood')
            value = data[at : at + size]
            if len(value) != size:
                raise ProtobufError('unexpected end of the protobuf body')
            at += size
        found.append((tag >> 3, wire, value))
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[at : at + _VARINT_BYTES_MAX]:
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise ProtobufError('unexpected end of the protobuf body')


def _message(name: str, data: bytes) -> dict[str, Any]:
    out: dict[str, Any] = {}
    known = _table()[1][name]
    for number, wire, raw in _fields(data):
        entry = known.get(number)
        if entry is None:
            if raw not in {0, b''}:
                raise ProtobufError(f'{name} has a field number {number} that this server does not know')
            continue
        json_name, shape, flags = entry
        if 'm' in flags:
            key, value = _map_entry(shape, _as_bytes(raw))
            out.setdefault(json_name, {})[key] = value
        elif 'r' in flags:
            out.setdefault(json_name, []).extend(_repeated(shape, wire, raw))
        else:
            value = _value(shape, wire, raw)
            if not json_name:
                out.update(value)
            elif value is not None and ('k' in flags or shape[0] == '@' or value not in (0, '', False)):
                out[json_name] = value
    return out


def _map_entry(shape: str, data: bytes) -> tuple[str, Any]:
    parts = {number: (wire, value) for number, wire, value in _fields(data)}
    key = _text(parts[1][1]) if 1 in parts else ''
    if 2 in parts:
        return key, _value(shape, *parts[2])
    return key, _value(shape, _VARINT, 0) if shape in {'v', 'b'} else _value(shape, _BYTES, b'')


def _repeated(shape: str, wire: int, raw: Any) -> list[Any]:
    if shape in {'v', 'b'} and wire == _BYTES:  # packed
        values, at = [], 0
        while at < len(raw):
            number, at = _varint(raw, at)
            values.append(_value(shape, _VARINT, number))
        return values
    return [_value(shape, wire, raw)]


def _value(shape: str, wire: int, raw: Any) -> Any:
    match shape:
        case 'v' | 'b':
            if wire != _VARINT:
                raise ProtobufError('a number is not encoded as one')
            return bool(raw) if shape == 'b' else raw - (1 << 64) if raw >> 63 else raw
        case 's':
            return _text(raw)
        case 'y':
            return base64.b64encode(_as_bytes(raw)).decode()
        case 'd' | 'f':
            size, layout = (8, '<d') if shape == 'd' else (4, '<f')
            if not isinstance(raw, bytes) or len(raw) != size:
                raise ProtobufError('a float is not encoded as one')
            return struct.unpack(layout, raw)[0]
        case _ if shape[0] == '@':
            return _message(shape[1:], _as_bytes(raw))
    return _special(shape, _as_bytes(raw))


def _special(shape: str, data: bytes) -> Any:
    """The types that write themselves to JSON in a form of their own."""
    parts = {number: value for number, _, value in _fields(data)}
    match shape:
        case 'T' | 'M':
            if not parts:
                return None
            seconds = parts.get(1, 0)
            seconds = seconds - (1 << 64) if seconds >> 63 else seconds
            try:
                moment = _EPOCH + timedelta(seconds=seconds, microseconds=parts.get(2, 0) // 1000)
            except OverflowError:
                raise ProtobufError('a time is out of range') from None
            return format_time(moment) if shape == 'T' else format_micro(moment)
        case 'Q':
            return _text(parts.get(1, b'0'))
        case 'I':
            if parts.get(1):
                return _text(parts.get(3, b''))
            number = parts.get(2, 0)
            return number - (1 << 64) if number >> 63 else number
        case 'L':
            return [_text(value) for number, _, value in _fields(data) if number == 1]
    try:
        return orjson.loads(parts.get(1) or b'null')
    except orjson.JSONDecodeError as error:
        raise ProtobufError(f'raw JSON inside the body is broken: {error}') from None


def _as_bytes(raw: Any) -> bytes:
    if not isinstance(raw, bytes):
        raise ProtobufError('a message is not encoded as one')
    return raw


def _text(raw: Any) -> str:
    try:
        return _as_bytes(raw).decode()
    except UnicodeDecodeError:
        raise ProtobufError('a text is not UTF-8') from None
