"""Stand-in for the `agnhost` test image: the subcommands that people's manifests and upstream's tests use most.

Bare sockets, as in `hello`: a container that starts in milliseconds makes tests of timing honest.
Source: test/images/agnhost (liveness, netexec, entrypoint-tester, serve-hostname, grpc-health-checking).
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from threading import Event, Thread, Timer
from urllib.parse import parse_qs, unquote, urlsplit

from knode.images import pause

Answer = tuple[int, bytes]
LINE_BYTES_MAX = 64 * 1024
LIVE_S = 10.0
"""`liveness` answers /healthz well for this long, and with 500 from then on."""
PREFACE_BYTES = 24
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6


def main() -> int:
    command, *args = sys.argv[1:] or ['pause']
    commands: dict[str, Callable[[list[str]], int]] = {
        'pause': lambda _: pause.main(),
        'entrypoint-tester': _entrypoint_tester,
        'liveness': _liveness,
        'netexec': _netexec,
        'serve-hostname': _serve_hostname,
        'grpc-health-checking': _grpc,
        'test-webserver': _netexec,
    }
    if command not in commands:
        print(f'agnhost: unknown command {command!r}; here are {", ".join(sorted(commands))}', file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    return commands[command](args)


def flag(args: list[str], name: str, default: str) -> str:
    """`--name=value` or `--name value`."""
    for i, a in enumerate(args):
        if a.startswith(f'--{name}='):
            return a.partition('=')[2]
        if a == f'--{name}' and i + 1 < len(args):
            return args[i + 1]
    return default


def _entrypoint_tester(args: list[str]) -> int:
    print(f'[{" ".join(["/agnhost", "entrypoint-tester", *args])}]', flush=True)
    return 0


def _host() -> str:
    return os.environ.get('POD_IP', '127.0.0.1')


def _liveness(args: list[str]) -> int:
    live = Event()
    live.set()
    Timer(LIVE_S, live.clear).start()

    def answer(path: str, peer: str) -> Answer:
        return (200, b'ok') if live.is_set() else (500, b'error: unhealthy')

    return _serve(int(flag(args, 'port', '8080')), answer)


def _serve_hostname(args: list[str]) -> int:
    name = os.environ.get('HOSTNAME', '').encode()
    return _serve(int(flag(args, 'port', '9376')), lambda path, peer: (200, name))


def _netexec(args: list[str]) -> int:
    name = os.environ.get('HOSTNAME', '').encode()

    def answer(path: str, peer: str) -> Answer:
        url = urlsplit(path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        match url.path:
            case '/hostname' | '/hostName':
                return 200, name
            case '/clientip':
                return 200, peer.encode()
            case '/echo':
                return int(query.get('code', '200')), unquote(query.get('msg', '')).encode()
            case '/exit':
                os._exit(int(query.get('code', '0')))
            case '/header' | '/' | '/healthz':
                return 200, b'NOW: ok'
        return 404, b'not found'

    return _serve(int(flag(args, 'http-port', '8080')), answer)


def _serve(port: int, answer: Callable[[str, str], Answer]) -> int:
    """HTTP/1.1, one request a connection."""

    def one(connection: socket.socket, peer: str) -> None:
        try:
            with connection, connection.makefile('rb') as lines:
                line = lines.readline(LINE_BYTES_MAX).decode('latin-1').split(' ')
                while lines.readline(LINE_BYTES_MAX).strip():
                    pass
                if len(line) < 2:
                    return
                code, body = answer(line[1], peer)
                print(f'{line[0]} {line[1]} {code}', flush=True)
                head = f'HTTP/1.1 {code} x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n'
                connection.sendall(head.encode() + body)
        except OSError:  # the peer is gone
            return

    return _accept(port, one)


def _accept(port: int, one: Callable[[socket.socket, str], None]) -> int:
    with socket.create_server((_host(), port), backlog=128) as server:
        while True:
            connection, peer = server.accept()
            Thread(target=one, args=(connection, peer[0]), daemon=True).start()


def _grpc(args: list[str]) -> int:
    """`grpc.health.v1.Health`: SERVING, and NOT_SERVING after `--delay-unhealthy-sec` (-1: never)."""
    healthy = Event()
    healthy.set()
    delay = float(flag(args, 'delay-unhealthy-sec', '-1'))
    if delay >= 0:
        Timer(delay, healthy.clear).start()
    return _accept(int(flag(args, 'port', '5000')), lambda c, peer: _grpc_connection(c, healthy))


def _grpc_connection(connection: socket.socket, healthy: Event) -> None:
    """Whatever is called is taken for Health/Check: as much HTTP/2 as a probe's single call needs."""
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
