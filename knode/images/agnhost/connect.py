"""agnhost subcommands that connect to somebody and say whether they got through."""

from __future__ import annotations

import os
import socket
import ssl
import time
from pathlib import Path

from knode.images.agnhost import flag, flags

ACCOUNT = Path('/var/run/secrets/kubernetes.io/serviceaccount')


def connect(args: list[str]) -> int:
    """`connect HOST:PORT [--timeout=5s]`; the word for what went wrong goes to stderr, as upstream's."""
    where = next((a for a in args if not a.startswith('-')), '')
    address, _, port = where.rpartition(':')
    try:
        socket.create_connection(
            (address, int(port)), timeout=float(flag(args, 'timeout', '5s').removesuffix('s'))
        ).close()
        return 0
    except TimeoutError:
        word = 'TIMEOUT'
    except ConnectionRefusedError:
        word = 'REFUSED'
    except socket.gaierror:
        word = 'DNS'
    except (OSError, ValueError) as e:
        word = f'OTHER: {e}'
    os.write(2, f'{word}\n'.encode())
    return 1


def in_cluster_client(args: list[str]) -> int:
    """Calls /healthz of the API with the pod's own token every `--poll-interval` seconds, and says how it went."""
    pause_s = float((flags(args, 'poll-interval') or ['30'])[-1])
    while True:
        token = (ACCOUNT / 'token').read_text()
        print(f'calling /healthz\nauthz_header={token[-8:]}', flush=True)
        print(_healthz(token), flush=True)
        time.sleep(pause_s)


def _healthz(token: str) -> str:
    host, port = os.environ['KUBERNETES_SERVICE_HOST'], int(os.environ['KUBERNETES_SERVICE_PORT'])
    tls = ssl.create_default_context(cafile=str(ACCOUNT / 'ca.crt'))
    try:
        with (
            socket.create_connection((host, port), timeout=10) as plain,
            tls.wrap_socket(plain, server_hostname='kubernetes') as connection,
        ):
            head = f'GET /healthz HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n'
            connection.sendall(head.encode())
            return connection.makefile('rb').read().decode().rpartition('\r\n')[2]
    except OSError as e:
        return f'err: {e}'
