"""A static file server on port 80 of the pod: the stand-in for `nginx` and `httpd`.

Where the kernel keeps ports below 1024 for root, it listens on 8080 and says so. It serves `$WEB_ROOT`, else what is
mounted where those images look for their pages, else a page of its own; access lines have the common log format.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from knode.images.ending import end_at

PAGE = b'<!DOCTYPE html><html><head><title>Welcome</title></head><body><h1>Welcome</h1><p>It works.</p></body></html>\n'


ROOTS = ('/usr/share/nginx/html', '/usr/local/apache2/htdocs')


class Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        print(f'{self.client_address[0]} - - [{self.log_date_time_string()}] {format % args}', flush=True)


def pages() -> Path:
    """What to serve."""
    given = os.environ.get('WEB_ROOT') or next((r for r in ROOTS if os.path.isdir(r)), '')
    if given:
        return Path(given)
    root = Path('html')
    root.mkdir(exist_ok=True)
    fd = os.open(root / 'index.html', os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, PAGE)
    os.close(fd)
    return root


def main() -> int:
    try:
        return serve(80)
    except PermissionError:
        print('port 80 needs privilege on this host: listening on 8080', file=sys.stderr, flush=True)
        return unprivileged()


def unprivileged() -> int:
    return serve(8080)


def serve(port: int) -> int:
    """Raises PermissionError."""
    end_at(signal.SIGTERM, signal.SIGQUIT)
    address = os.environ.get('POD_IP', '127.0.0.1'), port
    with ThreadingHTTPServer(address, partial(Files, directory=str(pages()))) as server:
        server.daemon_threads = True
        server.serve_forever()
    return 0
