"""A small HTTP server that says who it is and logs each request: the `hello` image.

It listens on `$POD_IP:$PORT` (default 8080) and ends cleanly on SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType


class Hello(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self) -> None:
        if self.path == '/healthz':
            text = 'ok\n'
        else:
            text = f'Hello from {os.environ.get("HOSTNAME", "nobody")} at {os.environ.get("POD_IP", "127.0.0.1")}\n'
        body = text.encode()
        self.send_response(200)
        self.send_header('Content-Type', 'text/plain; charset=utf-8')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        print(f'{self.client_address[0]} {format % args}', flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    print('goodbye', flush=True)
    sys.exit(0)


def main() -> int:
    host, port = os.environ.get('POD_IP', '127.0.0.1'), int(os.environ.get('PORT', '8080'))
    signal.signal(signal.SIGTERM, _leave)
    with ThreadingHTTPServer((host, port), Hello) as server:
        server.daemon_threads = True
        print(f'listening on http://{host}:{port}', flush=True)
        server.serve_forever()
    return 0
