"""The gRPC health check (`grpc.health.v1.Health/Check`) in as much HTTP/2 as one unary call takes.

A whole gRPC stack for one call of forty bytes would be the node's largest dependency. Cleartext HTTP/2 with prior
knowledge, literal header fields without indexing, answers read by a small HPACK reader that needs only the status.
Source: RFC 9113, RFC 7541, grpc/doc/health-checking.md.
"""

from __future__ import annotations

import asyncio
import struct

PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
SERVING = 1
STATUS_NAMES = {0: 'UNKNOWN', 1: 'SERVING', 2: 'NOT_SERVING', 3: 'SERVICE_UNKNOWN'}
FRAME_BYTES_MAX = 1 << 14


async def grpc_health(host: str, port: int, service: str, timeout_s: float) -> tuple[bool, str]:
    """Passes when the service answers SERVING. Says what upstream says, which calls no server at all a timeout, too."""
    where, met = f'{host}:{port}', False
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                await _meet(reader, writer)
                met = True
                return await _check(reader, writer, where, service)
            finally:
                writer.transport.abort()
    except (OSError, asyncio.IncompleteReadError) as e:
        if not met:
            return (
                False,
                f'timeout: failed to connect service "{where}" within {timeout_s:g}s: context deadline exceeded',
            )
        if isinstance(e, TimeoutError):
            return False, f'timeout: health rpc did not complete within {timeout_s:g}s'
        why = 'rpc error: code = Unavailable desc = error reading from server: EOF'
        return False, f'error: health rpc probe failed: {why}'


async def _meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Raises OSError and IncompleteReadError: whoever listens does not speak HTTP/2."""
    writer.write(PREFACE + _frame(SETTINGS, 0, 0, b''))
    kind, flags, _, _ = await _read_frame(reader)
    if kind != SETTINGS or flags & 1:
        raise OSError('the first frame of a server must be its settings')
    writer.write(_frame(SETTINGS, 1, 0, b''))


async def _check(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str, service: str
) -> tuple[bool, str]:
    name = service.encode()
    message = b'\x0a' + _varint(len(name)) + name if name else b''
    fields = (
        (':method', 'POST'), (':scheme', 'http'), (':path', '/grpc.health.v1.Health/Check'), (':authority', where),
        ('content-type', 'application/grpc'), ('te', 'trailers'), ('user-agent', 'kube-probe/1.33'),
    )  # fmt: skip
    block = b''.join(b'\x00' + _text(k) + _text(v) for k, v in fields)
    body = b'\x00' + struct.pack('>I', len(message)) + message
    writer.write(_frame(HEADERS, 4, 1, block) + _frame(DATA, 1, 1, body))
    answer = b''
    while True:
        kind, flags, stream, payload = await _read_frame(reader)
        if kind == SETTINGS and not flags & 1:
            writer.write(_frame(SETTINGS, 1, 0, b''))
        elif kind == PING and not flags & 1:
            writer.write(_frame(PING, 1, 0, payload))
        elif kind == DATA and stream == 1:
            answer += payload
        elif kind == GOAWAY:
            raise ConnectionError('the server goes away')
        if (stream == 1 and flags & 1 and kind in {DATA, HEADERS}) or kind == 3:
            break
    return _judge(answer, service)


def _judge(answer: bytes, service: str) -> tuple[bool, str]:
    """`answer` is a length-prefixed HealthCheckResponse; an empty one is an error status in the trailers."""
    if len(answer) < 5:
        return False, f'error: health rpc probe failed: the server does not know the health of service "{service}"'
    body = answer[5:]
    status = body[1] if len(body) >= 2 and body[0] == 0x08 else 0
    if status == SERVING:
        return True, ''
    return False, f'service unhealthy (responded with "{STATUS_NAMES.get(status, status)}")'


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def _text(value: str) -> bytes:
    """A header string, plain; lengths from 127 on take a continuation (RFC 7541 §5.1)."""
    raw = value.encode()
    return (bytes([len(raw)]) if len(raw) < 127 else b'\x7f' + _varint(len(raw) - 127)) + raw


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack('>I', len(payload))[1:] + bytes([kind, flags]) + struct.pack('>I', stream) + payload


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    head = await reader.readexactly(9)
    length = int.from_bytes(head[:3], 'big')
    if length > FRAME_BYTES_MAX:
        raise OSError('frame too large')
    return head[3], head[4], int.from_bytes(head[5:9], 'big') & 0x7FFFFFFF, await reader.readexactly(length)
