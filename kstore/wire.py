"""The wire: length-prefixed msgpack frames, both directions, clients and peers alike.

A frame is a 4-byte big-endian length and that many bytes of msgpack. The length is checked before anything is
allocated for it. The first frame of each side is the *hello*; after it

* a client sends requests `[id, op, ...]` and gets replies `[id, code, body]`, in any order;
* the server also sends stream messages `[0, kind, ...]` (watch events; request id 0 is never a request);
* peers send `[kind, body]`.

Replies carry results that were packed once, when the command was applied: `reply` only glues bytes together.
Numbers below are the protocol: extend them, never renumber.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgpack

from kstore.errors import OK, ProtocolError, StoreError, to_wire

MAGIC = 'kstore'
VERSION = 1
FRAME_BYTES_MAX = 32 * 1024 * 1024
"""Largest frame read; a longer length prefix closes the connection."""
REQUEST_BYTES_MAX = 5 * 1024 * 1024
"""The same for what a client sends: a command at its largest, and what goes around it."""
HELLO_BYTES_MAX = 4 * 1024
"""Largest first frame: a stranger cannot make a member buffer more than this."""
ITEMS_MAX = 1 << 17
"""Longest array or map in a frame."""

_LENGTH = struct.Struct('>I')
_pack_length = _LENGTH.pack
_packer = msgpack.Packer(use_bin_type=True, autoreset=True)
pack: Callable[[Any], bytes] = _packer.pack
"""One value to msgpack. (One packer serves the process: packing never yields to another coroutine or thread.)"""


class Role(IntEnum):
    CLIENT = 1
    PEER = 2


class Op(IntEnum):
    """What a client asks for."""

    RANGE = 1
    WRITE = 2  # a packed command (see kstore.fsm) and, for a compare-and-swap, its key (see kstore.contention)
    WATCH = 3
    UNWATCH = 4
    KEEPALIVE = 5
    LEASE_TTL = 6
    LEASES = 7
    STATUS = 8
    REVISION = 9
    HASH = 10
    SNAPSHOT = 11
    PROGRESS = 12
    ADMIN = 13
    DEFRAG = 14
    USAGE = 15


class Stream(IntEnum):
    """What a server sends unasked."""

    CAUGHT_UP = 1  # [0, 1, watch, feed, revision]: from here on the watch is fed by `feed`
    HISTORY = 2  # [0, 2, watch, revision, more, events]
    FEED = 3  # [0, 3, feed, revision, more, events]
    PROGRESS = 4  # [0, 4, feed, revision]
    CANCELLED = 5  # [0, 5, watch, code, body]


class Peer(IntEnum):
    """What members tell each other."""

    RAFT = 1  # [1, message bytes]
    FORWARD = 2  # [2, [[id, op, body, guard], ...]]
    ANSWER = 3  # [3, [[id, reply bytes], ...]]


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of each side."""

    role: Role
    cluster: int
    """Cluster id; 0 from a client that does not know it."""
    member: int
    """Member id; 0 from a client."""

    def encode(self) -> bytes:
        return frame(pack([MAGIC, VERSION, int(self.role), self.cluster, self.member]))

    @staticmethod
    def decode(payload: bytes) -> Hello:
        """Raises ProtocolError for anything but a hello of this version."""
        value = unpack(payload)
        if not isinstance(value, list) or len(value) < 5 or value[0] != MAGIC:
            raise ProtocolError('not a kstore connection')
        _, version, role, cluster, member = value[:5]
        if version != VERSION:
            raise ProtocolError(f'protocol version {version!r} is not supported, this is {VERSION}')
        if role not in (Role.CLIENT, Role.PEER) or not isinstance(cluster, int) or not isinstance(member, int):
            raise ProtocolError('malformed hello')
        return Hello(Role(role), cluster, member)


def frame(payload: bytes) -> bytes:
    return _pack_length(len(payload)) + payload


def unpack(payload: bytes | memoryview) -> Any:
    """One msgpack value with nothing after it. Raises ProtocolError."""
    most = min(ITEMS_MAX, len(payload))  # msgpack makes room for what an array claims to have
    try:
        return msgpack.unpackb(
            payload, raw=False, use_list=True, strict_map_key=False, max_array_len=most, max_map_len=most
        )
    except Exception as e:  # msgpack raises ValueError, its own tree, RecursionError-like StackError
        raise ProtocolError(f'malformed msgpack: {type(e).__name__}') from e


class FrameReader:
    """Bytes in, whole payloads out; keeps at most one incomplete frame."""

    __slots__ = ('_buffer', '_limit')

    def __init__(self, limit: int = FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def allow(self, limit: int) -> None:
        """Change the largest frame, once the peer has said who it is."""
        self._limit = limit

    @property
    def pending(self) -> int:
        """Bytes of the incomplete frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads completed by `data`, in order. Raises ProtocolError at a length over the limit."""
        buffer = self._buffer
        if not buffer and 4 <= len(data) <= self._limit and _LENGTH.unpack_from(data)[0] == len(data) - 4:
            return [data[4:]]  # the usual case
        source: bytes | bytearray = data
        if buffer:
            buffer += data
            source = buffer
        position, end, payloads = 0, len(source), []
        while end - position >= 4:
            (length,) = _LENGTH.unpack_from(source, position)
            if length > self._limit:
                raise ProtocolError(f'frame of {length} bytes is over the limit of {self._limit}')
            stop = position + 4 + length
            if stop > end:
                break
            payloads.append(bytes(source[position + 4 : stop]))
            position = stop
        if source is buffer:
            del buffer[:position]
        elif position < end:
            buffer += data[position:]
        return payloads


def reply(request: int, result: bytes) -> bytes:
    """The frame for `[request, *result]`, where `result` is a packed code followed by a packed body."""
    head = b'\x93' + pack(request)
    return _pack_length(len(head) + len(result)) + head + result


def success(body: bytes) -> bytes:
    """A result: code 0 and an already packed body."""
    return b'\x00' + body


def failure(error: StoreError) -> bytes:
    """A result: the error's code and body."""
    code, body = to_wire(error)
    return pack(code) + pack(body)


def split_result(result: bytes) -> tuple[int, Any]:
    """Code and body of a result; for tests and for members that look into their own answers."""
    code = result[0]
    if code == OK:
        return OK, unpack(result[1:])
    value = unpack(b'\x92' + result)
    return value[0], value[1]
