"""A small HTTP server that says who it is and logs each request: the `hello` image.

It listens on `$POD_IP:$PORT` (default 8080) and ends cleanly on SIGTERM. Bare sockets and a thread a connection: the
standard library's HTTP server takes thirty milliseconds to import, in which the first readiness probe finds nobody.
`/healthz` is answered but not logged.
"""

from __future__ import annotations

import os
import signal
import socket
from threading import Thread

from knode.images.ending import end_at

HEAD_LINES_MAX = 100
"""Header lines of one request; one more ends the connection."""
LINE_BYTES_MAX = 16 * 1024
IDLE_S = 60.0
"""How long a silent connection is kept."""
PROBE_PATH = '/healthz'


def _serve(connection: socket.socket, peer: str) -> None:
    try:
        with connection, connection.makefile('rb') as lines:
            connection.settimeout(IDLE_S)
            while line := lines.readline(LINE_BYTES_MAX).decode('latin-1').rstrip():
                close = line.endswith('HTTP/1.0')
                for _ in range(HEAD_LINES_MAX):
                    header = lines.readline(LINE_BYTES_MAX).strip().lower().replace(b' ', b'')
                    if not header:
                        break
                    close = close or header == b'connection:close'
                else:
                    return
                method, path, *_ = [*line.split(' '), '', '']
                status, body = _answer(path)
                if path != PROBE_PATH:
                    print(f'{peer} "{line}" {status[:3]}', flush=True)
                connection.sendall(_head(status, len(body), close=close) + (b'' if method == 'HEAD' else body))
                if close:
                    return
    except OSError:  # the peer is gone, or silent for too long
        return


def _head(status: str, length: int, *, close: bool) -> bytes:
    return (
        f'HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n'
        f'Connection: {"close" if close else "keep-alive"}\r\n\r\n'
    ).encode()


def _answer(path: str) -> tuple[str, bytes]:
    if not path.startswith('/'):
        return '400 Bad Request', b'bad request\n'
    if path == PROBE_PATH:
        return '200 OK', b'ok\n'
    who, where = os.environ.get('HOSTNAME', 'nobody'), os.environ.get('POD_IP', '127.0.0.1')
    return '200 OK', f'Hello from {who} at {where}\n'.encode()


def main() -> int:
    host, port = os.environ.get('POD_IP', '127.0.0.1'), int(os.environ.get('PORT', '8080'))
    end_at(signal.SIGTERM, saying='goodbye\n')
    with socket.create_server((host, port), backlog=128) as server:
        print(f'listening on http://{host}:{port}', flush=True)
        while True:
            connection, peer = server.accept()
            Thread(target=_serve, args=(connection, peer[0]), daemon=True).start()
