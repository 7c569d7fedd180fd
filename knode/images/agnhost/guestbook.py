"""`agnhost guestbook`: a page that keeps entries in a primary, which tells its replicas; all find each other by name.

Source: test/images/agnhost/guestbook.
"""

from __future__ import annotations

import json
import socket
import time
from http.client import HTTPConnection, HTTPException
from threading import Thread
from urllib.parse import parse_qs, urlencode, urlsplit

from knode.images.agnhost import flag
from knode.images.agnhost.http import Answer, host, serve

PRIMARY, REPLICA = 'agnhost-primary', 'agnhost-replica'
REQUEST_S = 5.0
REGISTER_S = 1.0
"""Between tries to reach a primary that is not there yet."""
ENTRIES_MAX, REPLICAS_MAX = 1000, 100


class Guestbook:
    def __init__(self, backend_port: int) -> None:
        self._backend_port = backend_port
        self._entries: dict[str, str] = {}
        self._replicas: set[str] = set()

    def answer(self, path: str, peer: str, headers: dict[str, str]) -> Answer:
        url = urlsplit(path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        match url.path:
            case '/guestbook':
                return self._proxy(query)
            case '/get':
                return _said(self._entries.get(query.get('key', ''), ''))
            case '/set':
                return self._set(query)
            case '/register':
                if len(self._replicas) < REPLICAS_MAX:
                    self._replicas.add(query.get('host', ''))
                return _said(json.dumps(self._entries))
        return 404, b'not found'

    def _proxy(self, query: dict[str, str]) -> Answer:
        """What the page asks: writes go to the primary, reads to a replica."""
        command = query.get('cmd', '')
        if command not in {'get', 'set'}:
            return 400, b'cmd must be get or set'
        try:
            return 200, _ask(PRIMARY if command == 'set' else REPLICA, self._backend_port, command, query)
        except (OSError, HTTPException) as e:
            return 500, f'unable to reach the backend: {e}'.encode()

    def _set(self, query: dict[str, str]) -> Answer:
        key, value = query.get('key', ''), query.get('value', '')
        if not key or (len(self._entries) >= ENTRIES_MAX and key not in self._entries):
            return 400, b'no key, or too many entries'
        self._entries[key] = value
        for replica in [*self._replicas]:
            try:
                _ask(replica, self._backend_port, 'set', {'key': key, 'value': value})
            except (OSError, HTTPException):
                self._replicas.discard(replica)  # it is gone; another one registers by itself
        return _said('Updated')

    def follow(self, primary: str) -> None:
        """Register, and take over what the primary has."""
        while True:
            try:
                known = json.loads(_ask(primary, self._backend_port, 'register', {'host': host()}))['data']
                self._entries |= json.loads(known)
                return
            except (OSError, HTTPException, ValueError):
                time.sleep(REGISTER_S)


def guestbook(args: list[str]) -> int:
    """`--http-port` (80), `--backend-port` (6379), `--replicaof NAME` of a primary."""
    port, primary = int(flag(args, 'http-port', '80')), flag(args, 'replicaof', '')
    book = Guestbook(int(flag(args, 'backend-port', '6379')))
    if primary:
        Thread(target=book.follow, args=(primary,), daemon=True).start()
    return serve(port, book.answer)


def _said(text: str) -> Answer:
    return 200, json.dumps({'data': text}).encode()


def _ask(name: str, port: int, command: str, query: dict[str, str]) -> bytes:
    connection = HTTPConnection(socket.gethostbyname(name), port, timeout=REQUEST_S)
    try:
        connection.request('GET', f'/{command}?{urlencode(query)}')
        return connection.getresponse().read()
    finally:
        connection.close()
