"""What arrives on the wire, byte for byte: packed, chunked, cut short, garbled; never a 5xx, never a dead server."""

from __future__ import annotations

import asyncio
import gzip
import ssl

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

HEAD = b'POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\n'
JSON = HEAD + b'Content-Type: application/json\r\n'
PROTOBUF = HEAD + b'Content-Type: application/vnd.kubernetes.protobuf\r\n'
BODY = b'{"metadata":{"name":"a"}}'
PACKED = gzip.compress(BODY)
BOMB = gzip.compress(b'{"a":"' + b' ' * 50_000_000 + b'"}', 9)
ANSWER_BYTES_MAX = 100_000


def sized(head: bytes, body: bytes) -> bytes:
    return head + b'Content-Length: %d\r\n\r\n' % len(body) + body


@pytest.fixture
async def said(world, authority):
    """`await said(bytes, …)`: the answer to these writes on a connection of its own; empty when there is none."""
    tls = ssl.create_default_context(cafile=str(authority.directory / 'ca.crt'))
    tls.load_cert_chain(*authority.issue('user-admin-system-masters', 'admin', 'system:masters'))
    port = int(world.base.rsplit(':', 1)[1])

    async def ask(*parts: bytes, patience_s: float = 10) -> bytes:
        reader, writer = await asyncio.open_connection('127.0.0.1', port, ssl=tls, server_hostname='localhost')
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            async with asyncio.timeout(patience_s):
                return await reader.read(ANSWER_BYTES_MAX)
        except (ConnectionError, TimeoutError):
            return b''
        finally:
            writer.transport.abort()

    return ask


def status(answer: bytes) -> int:
    return int(answer.split(b' ', 2)[1])


@pytest.mark.parametrize(('request_', 'wanted'), [
    (sized(JSON, BODY), 201),
    (JSON + b'Transfer-Encoding: chunked\r\n\r\n19\r\n' + BODY + b'\r\n0\r\n\r\n', 201),
    (sized(JSON + b'Content-Encoding: gzip\r\n', PACKED), 400),
    (sized(JSON + b'Content-Encoding: gzip\r\n', PACKED[:12]), 400),
    (sized(JSON + b'Content-Encoding: gzip\r\n', b'hello'), 400),
    (sized(JSON + b'Content-Encoding: deflate\r\n', b'hello'), 400),
    (sized(JSON + b'Content-Encoding: br\r\n', b'hello'), 400),
    (sized(JSON + b'Content-Encoding: gzip\r\n', BOMB), 400),
    (JSON + b'Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n', 400),
    (JSON + b'Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n', 400),
    (JSON + b'Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n', 400),
    (JSON + b'Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n', 400),
    (JSON + b'Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello', 400),
    (JSON + b'Content-Length: -5\r\n\r\nhello', 400),
    (JSON + b'Content-Length: 99999999999\r\n\r\nhello', 413),
    (sized(PROTOBUF, b'k8s\x00\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01'), 415),
    (b'GET /api/v1/namespaces/\xff\xfe/pods HTTP/1.1\r\nHost: x\r\n\r\n', 400),
    (b'GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nImpersonate-User: \xff\xfe\r\n\r\n', 400),
    (sized(JSON + b'User-Agent: \xff\xfe\r\n', BODY), 400),
    (sized(JSON + b'User-Agent: m\xc3\xbcller/1\r\n', BODY), 201),
    (b'GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
     b'Sec-WebSocket-Version: 99\r\nSec-WebSocket-Key: x\r\n\r\n', 400),
    (b'GET https://x/version HTTP/1.1\r\nHost: x\r\n\r\n', 200),
    (b'GET / HTTP/1.1\r\nHost: x\r\nX: ' + b'a' * 70_000 + b'\r\n\r\n', 400),
])  # fmt: skip
async def test_what_cannot_be_read_is_the_senders_fault(said, api, request_, wanted):
    assert status(await said(request_)) == wanted
    assert (await api.get('/livez')).text == 'ok'


async def test_a_body_whose_chunks_go_wrong_later_is_the_senders_fault(said, api):
    begun = JSON + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"met\r\n'
    answer = await said(begun, b'zz\r\n\r\n')
    assert not answer or status(answer) == 400
    assert (await api.get('/livez')).text == 'ok'


WHOLE = (sized(JSON, BODY), JSON + b'Transfer-Encoding: chunked\r\n\r\n19\r\n' + BODY + b'\r\n0\r\n\r\n',
         sized(PROTOBUF, b'k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x05\n\x03\n\x01a'))  # fmt: skip


@settings(max_examples=60, derandomize=True)
@given(
    whole=st.sampled_from(WHOLE), noise=st.binary(min_size=1, max_size=4),
    place=st.tuples(st.integers(0, 250), st.booleans()),
)  # fmt: skip
async def test_a_garbled_request_never_breaks_the_server(said, api, whole, noise, place):
    at, cut = place[0] % len(whole), place[1]
    garbled = whole[:at] + noise + (b'' if cut else whole[at:])
    with structlog.testing.capture_logs() as logs:
        answer = await said(garbled + b'\r\n\r\n', patience_s=0.05)  # the server may well wait for more
        assert (await api.get('/livez')).text == 'ok'
    assert not answer or status(answer) < 500, (garbled, answer)
    assert not [entry for entry in logs if entry['log_level'] == 'error'], garbled
