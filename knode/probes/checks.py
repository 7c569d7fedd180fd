"""One check, once: exec, HTTP or TCP. Returns whether it passed and what to say when it did not.

Source: pkg/probe/{http,tcp,exec}; the texts are what `kubectl describe` is known to show.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from knode.errors import os_text

Obj = Mapping[str, Any]
Outcome = tuple[bool, str]
"""Whether it passed, and why not; a text beside one that passed is a warning."""

BODY_BYTES_MAX = 10 * 1024
REDIRECTS = frozenset({301, 302, 303, 307, 308})
REDIRECTS_MAX = 10


def port_number(container: Obj, port: int | str) -> int:
    """A number, or the container's port of that name. Raises ValueError."""
    if isinstance(port, int):
        number = port
    else:
        named = [int(p['containerPort']) for p in container.get('ports') or () if p.get('name') == port]
        if not named and not port.isdigit():
            raise ValueError(f'strconv.Atoi: parsing "{port}": invalid syntax')  # what users look for
        number = named[0] if named else int(port)
    if not 0 < number < 65536:
        raise ValueError(f'invalid port number: {number}')
    return number


async def tcp_connect(host: str, port: int, timeout_s: float) -> Outcome:
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return False, f'dial tcp {host}:{port}: i/o timeout'
    except OSError as e:
        return False, f'dial tcp {host}:{port}: {_os_text(e)}'
    writer.transport.abort()
    return True, ''


async def http_get(get: Obj, host: str, port: int, timeout_s: float) -> Outcome:
    """Passes on 200 to 399. TLS is not verified, as probes never do; a redirect to another host passes unfollowed."""
    scheme = (get.get('scheme') or 'HTTP').lower()
    path = get.get('path') or '/'
    url = f'{scheme}://{host}:{port}{path if path.startswith("/") else "/" + path}'
    headers = {'User-Agent': 'kube-probe/1.33', 'Accept': '*/*'}
    headers |= {h['name']: h['value'] for h in get.get('httpHeaders') or ()}
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
            asyncio.timeout(timeout_s),
        ):
            status, body = await _follow(session, URL(url, encoded=True), headers)
        if 300 <= status < 400:
            return True, f'Probe terminated redirects, Response body: {body}'
        return (True, '') if 200 <= status < 300 else (False, f'HTTP probe failed with statuscode: {status}')
    except TimeoutError:
        return False, f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    except aiohttp.ClientConnectorError as e:
        return False, f'Get "{url}": dial tcp {host}:{port}: {_os_text(e.os_error)}'
    except (aiohttp.ClientError, OSError, ValueError) as e:
        return False, f'Get "{url}": {e or "EOF"}'


async def _follow(session: aiohttp.ClientSession, url: URL, headers: Mapping[str, str]) -> tuple[int, str]:
    """The last status and body on the way; never asks another host than the first."""
    host = url.host
    for _ in range(REDIRECTS_MAX):
        async with session.get(url, headers=headers, ssl=False, allow_redirects=False) as response:
            body = (await response.content.read(BODY_BYTES_MAX)).decode(errors='replace')
            target = response.headers.get('Location', '')
            if response.status not in REDIRECTS or not target:
                return response.status, body
            url = url.join(URL(target))
            if url.host != host:
                return response.status, body
    raise ValueError(f'stopped after {REDIRECTS_MAX} redirects')


def _os_text(e: OSError) -> str:
    return 'lookup: no such host' if isinstance(e, socket.gaierror) else f'connect: {os_text(e)}'
