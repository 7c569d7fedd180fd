"""`agnhost grpc-health-checking`: the gRPC health service, as much HTTP/2 as a probe's single call needs."""

from __future__ import annotations

import socket
import struct
from threading import Event, Timer

from knode.images.agnhost import flag
from knode.images.agnhost.http import accept

PREFACE_BYTES = 24
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6


def serve(args: list[str]) -> int:
    """`grpc.health.v1.Health`: SERVING, and NOT_SERVING after `--delay-unhealthy-sec` (-1: never)."""
    healthy = Event()
    healthy.set()
    delay = float(flag(args, 'delay-unhealthy-sec', '-1'))
    if delay >= 0:
        Timer(delay, healthy.clear).start()
    return accept(int(flag(args, 'port', '5000')), lambda c, peer: _answer(c, healthy))


def _answer(connection: socket.socket, healthy: Event) -> None:
    """Whatever is called is taken for Health/Check."""
    try:
        with connection, connection.makefile('rb') as frames:
            frames.read(PREFACE_BYTES)
            connection.sendall(_frame(SETTINGS, 0, 0, b''))
            while len(head := frames.read(9)) == 9:
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:9], 'big') & 0x7FFFFFFF
                payload = frames.read(int.from_bytes(head[:3], 'big'))
                if kind in {SETTINGS, PING} and not flags & 1:
                    connection.sendall(_frame(kind, 1, 0, payload if kind == PING else b''))
                elif kind in {DATA, HEADERS} and flags & 1:
                    message = b'\x08' + bytes([1 if healthy.is_set() else 2])
                    fields = b'\x88\x00\x0ccontent-type\x10application/grpc'
                    trailers = b'\x00\x0bgrpc-status\x010'
                    connection.sendall(
                        _frame(HEADERS, 4, stream, fields)
                        + _frame(DATA, 0, stream, b'\x00' + struct.pack('>I', len(message)) + message)
                        + _frame(HEADERS, 5, stream, trailers)
                    )
    except OSError:  # the peer is gone
        return


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack('>I', len(payload))[1:] + bytes([kind, flags]) + struct.pack('>I', stream) + payload
