"""agnhost subcommands that answer HTTP, on bare sockets as in `knode.images.hello`."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from threading import Event, Thread, Timer

from knode.images.agnhost import flag

Answer = tuple[int, bytes]
LINE_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 1 << 20
LIVE_S = 10.0
"""`liveness` answers /healthz well for this long, and with 500 from then on."""


def host() -> str:
    return os.environ.get('POD_IP', '127.0.0.1')


def hostname() -> bytes:
    return os.environ.get('HOSTNAME', '').encode()


def liveness(args: list[str]) -> int:
    live = Event()
    live.set()
    Timer(LIVE_S, live.clear).start()

    def answer(path: str, peer: str, headers: dict[str, str]) -> Answer:
        return (200, b'ok') if live.is_set() else (500, b'error: unhealthy')

    return serve(int(flag(args, 'port', '8080')), answer)


def serve_hostname(args: list[str]) -> int:
    name = hostname()
    return serve(int(flag(args, 'port', '9376')), lambda path, peer, headers: (200, name))


def porter(args: list[str]) -> int:
    """Answers on each port for which there is a variable `SERVE_PORT_<number>`, with its value."""
    ports = {int(k.removeprefix('SERVE_PORT_')): v for k, v in os.environ.items() if k.startswith('SERVE_PORT_')}
    threads = [Thread(target=serve, args=(port, _saying(text)), daemon=True) for port, text in ports.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


def _saying(text: str) -> Callable[[str, str, dict[str, str]], Answer]:
    return lambda path, peer, headers: (200, text.encode())


def serve(port: int, answer: Callable[[str, str, dict[str, str]], Answer]) -> int:
    """HTTP/1.1, one request a connection. answer: (path with query, peer as ip:port, headers in lower case)."""

    def one(connection: socket.socket, peer: str) -> None:
        try:
            with connection, connection.makefile('rb') as lines:
                line = lines.readline(LINE_BYTES_MAX).decode('latin-1').split()
                headers = {}
                while header := lines.readline(LINE_BYTES_MAX).decode('latin-1').strip():
                    name, _, value = header.partition(':')
                    headers[name.lower()] = value.strip()
                if len(line) < 2:
                    return
                lines.read(min(int(headers.get('content-length', '0')), BODY_BYTES_MAX))
                code, body = answer(line[1], peer, headers)
                print(f'{line[0]} {line[1]} {code}', flush=True)
                head = f'HTTP/1.1 {code} x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n'
                connection.sendall(head.encode() + (b'' if line[0] == 'HEAD' else body))
        except (OSError, ValueError):  # the peer is gone, or does not speak HTTP
            return

    return accept(port, one)


def accept(port: int, one: Callable[[socket.socket, str], None]) -> int:
    with socket.create_server((host(), port), backlog=128) as server:
        while True:
            connection, peer = server.accept()
            Thread(target=one, args=(connection, f'{peer[0]}:{peer[1]}'), daemon=True).start()
