"""A static file server on port 80 of the pod: the stand-in for `nginx` and `httpd`.

Where the kernel keeps ports below 1024 for root, it listens on 8080 and says so. `$WEB_ROOT` (default: a page of its
own) is what it serves; access lines have the common log format.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType

PAGE = b'<!DOCTYPE html><html><head><title>Welcome</title></head><body><h1>Welcome</h1><p>It works.</p></body></html>\n'


class Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        print(f'{self.client_address[0]} - - [{self.log_date_time_string()}] {format % args}', flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> int:
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGQUIT, _leave)
    host = os.environ.get('POD_IP', '127.0.0.1')
    root = Path(os.environ.get('WEB_ROOT', 'html'))
    root.mkdir(parents=True, exist_ok=True)
    if not any(root.iterdir()):
        fd = os.open(root / 'index.html', os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, PAGE)
        os.close(fd)
    handler = partial(Files, directory=str(root))
    try:
        server = ThreadingHTTPServer((host, 80), handler)
    except PermissionError:
        print('port 80 needs privilege on this host: listening on 8080', file=sys.stderr, flush=True)
        server = ThreadingHTTPServer((host, 8080), handler)
    with server:
        server.daemon_threads = True
        server.serve_forever()
    return 0
