"""Servers that say one thing, which tutorials use to show Services: stand-ins for `http-echo` and `hello-app`."""

from __future__ import annotations

import os
import signal
import sys

from knode.images.agnhost import flag
from knode.images.agnhost.http import hostname, serve
from knode.images.ending import end_at


def http_echo() -> int:
    """hashicorp/http-echo: `-text=…` on `-listen=:5678`."""
    end_at(signal.SIGTERM)
    args = [f'-{a}' if a.startswith('-') and not a.startswith('--') else a for a in sys.argv[1:]]
    text = flag(args, 'text', os.environ.get('ECHO_TEXT', ''))
    if not text:
        print('Missing -text option!', file=sys.stderr)
        return 127
    port = flag(args, 'listen', ':5678').rpartition(':')[2]
    return serve(int(port), lambda path, peer, headers: (200, f'{text}\n'.encode()))


def hello_app() -> int:
    """google-samples/hello-app: who answers, on `$PORT` (8080)."""
    end_at(signal.SIGTERM)
    said = f'Hello, world!\nVersion: 1.0.0\nHostname: {hostname().decode()}\n'.encode()
    return serve(int(os.environ.get('PORT', '8080')), lambda path, peer, headers: (200, said))
