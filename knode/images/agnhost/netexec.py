"""`agnhost netexec`: a server that says who it is and does over HTTP and UDP what tests of networks ask of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Thread, Timer
from urllib.parse import parse_qs, quote, urlsplit

from knode.images.agnhost import flag
from knode.images.agnhost.http import Answer, host, hostname, serve

DIAL_S = 5.0
"""What a dialled peer may take."""
SHELL_S = 30.0
DATAGRAM_BYTES_MAX = 2048


def netexec(args: list[str]) -> int:
    """`--http-port` (8080), `--udp-port` (8081; -1: none), `--delay-shutdown` is ignored."""
    udp = int(flag(args, 'udp-port', '-1' if 'test-webserver' in args else '8081'))
    if udp > 0:
        Thread(target=_serve_datagrams, args=(udp,), daemon=True).start()
    return serve(int(flag(args, 'http-port', '8080')), answer)


def answer(path: str, peer: str, headers: dict[str, str]) -> Answer:
    url = urlsplit(path)
    query = {k: v[0] for k, v in parse_qs(url.query).items()}
    match url.path:
        case '/hostname' | '/hostName':
            return 200, hostname()
        case '/clientip':
            return 200, peer.encode()
        case '/echo':
            return int(query.get('code', '200')), query.get('msg', '').encode()
        case '/exit':
            os._exit(int(query.get('code', '0')))
        case '/shutdown':
            Timer(float(query.get('timeout', '0')), os._exit, (0,)).start()
            return 200, b''
        case '/header':
            return 200, headers.get(query.get('key', '').lower(), '').encode()
        case '/dial':
            return 200, _dial(query)
        case '/shell':
            return 200, _shell(query.get('cmd') or query.get('shellCommand', ''))
        case '/healthz':
            return 200, b''
        case '/':
            return 200, f'NOW: {datetime.now(UTC)}'.encode()
    return 404, b'not found'


def _dial(query: dict[str, str]) -> bytes:
    """Ask another netexec; `{"responses": […], "errors": […]}` as upstream writes it."""
    ask = _ask_datagram if query.get('protocol', 'http') == 'udp' else _ask_http
    responses, errors = [], []
    for _ in range(int(query.get('tries', '1'))):
        try:
            responses.append(ask(query['host'], int(query['port']), query.get('request', 'hostname')))
        except (OSError, KeyError, ValueError) as e:
            errors.append(str(e))
    return json.dumps({'responses': responses} | ({'errors': errors} if errors else {})).encode()


def _ask_http(address: str, port: int, request: str) -> str:
    with socket.create_connection((address, port), timeout=DIAL_S) as peer, peer.makefile('rb') as lines:
        peer.sendall(f'GET /{quote(request, safe="/?=&%")} HTTP/1.0\r\nHost: {address}:{port}\r\n\r\n'.encode())
        while lines.readline().strip():
            pass
        return lines.read().decode()


def _ask_datagram(address: str, port: int, request: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(DIAL_S)
        peer.sendto(request.encode(), (address, port))
        return peer.recv(DATAGRAM_BYTES_MAX).decode()


def _shell(command: str) -> bytes:
    # To run what it is told is its purpose.
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=SHELL_S)  # noqa: S602
    found = {'output': done.stdout + done.stderr}
    return json.dumps(found | ({'error': f'exit status {done.returncode}'} if done.returncode else {})).encode()


def _serve_datagrams(port: int) -> None:
    replies: dict[str, Callable[[str, str], str]] = {
        'hostname': lambda rest, peer: hostname().decode(),
        'clientip': lambda rest, peer: peer,
        'echo': lambda rest, peer: rest,
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((host(), port))
        while True:
            data, peer = server.recvfrom(DATAGRAM_BYTES_MAX)
            word, _, rest = data.decode(errors='replace').strip().partition(' ')
            reply = replies.get(word.lower())
            if reply is not None:
                server.sendto(reply(rest, f'{peer[0]}:{peer[1]}').encode(), peer)
