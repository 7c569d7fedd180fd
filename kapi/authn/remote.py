"""HTTPS calls to services that judge for us (token and access webhooks, OIDC): a kubeconfig file names each.

One connection pool a service, opened at first use; every call has a deadline.
"""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

from kcore.env import Env
from kcore.tasks import BadSetting

Obj = dict[str, Any]
TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 1024 * 1024
"""A longer answer is an error."""
CONNECTIONS_MAX = 32


class RemoteError(Exception):
    """No usable answer; the text says why."""


class BadRemote(BadSetting):
    """A configuration file that cannot be used; the text names it."""


@dataclass(slots=True)
class Remote:
    """One service."""

    url: str
    tls: ssl.SSLContext
    token: str = ''
    _session: aiohttp.ClientSession | None = None

    async def post(self, body: Obj) -> Obj:
        return await self.call('POST', self.url, body)

    async def call(self, method: str, url: str, body: Obj | None = None) -> Obj:
        """Raises RemoteError."""
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self.tls, limit=CONNECTIONS_MAX)
            headers = {'Authorization': f'Bearer {self.token}'} if self.token else {}
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers)
        data = orjson.dumps(body) if body is not None else None
        headers = {'Content-Type': 'application/json'} if data is not None else {}
        try:
            async with self._session.request(method, url, data=data, headers=headers, allow_redirects=False) as reply:
                answer = await reply.content.read(ANSWER_BYTES_MAX + 1)
                if reply.status not in {200, 201} or len(answer) > ANSWER_BYTES_MAX:
                    raise RemoteError(f'{url} answered {reply.status} with {len(answer)} bytes')
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise RemoteError(f'{url}: {type(e).__name__}: {e}') from e
        try:
            found = orjson.loads(answer)
        except ValueError:
            raise RemoteError(f'{url} answered something that is not JSON') from None
        if not isinstance(found, dict):
            raise RemoteError(f'{url} answered something that is not an object')
        return found

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def from_kubeconfig(path: Path, env: Env) -> Remote:
    """The current context of a kubeconfig file. Raises BadRemote."""
    try:
        document = yaml.safe_load(env.disk.read(path))
        contexts = {c['name']: c['context'] for c in document['contexts']}
        context = contexts[document['current-context']]
        cluster = {c['name']: c['cluster'] for c in document['clusters']}[context['cluster']]
        user = {u['name']: u['user'] or {} for u in document.get('users') or ()}.get(context.get('user'), {})
        return Remote(cluster['server'], _tls(path, cluster, user), str(user.get('token') or ''))
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError, ssl.SSLError) as e:
        raise BadRemote(f'{path}: no kubeconfig that can be used ({type(e).__name__}: {e})') from None


def _tls(path: Path, cluster: Obj, user: Obj) -> ssl.SSLContext:
    def beside(name: str) -> str:
        return str(path.parent / name)

    data = cluster.get('certificate-authority-data')
    text = base64.b64decode(data).decode() if data else None
    file = cluster.get('certificate-authority')
    context = ssl.create_default_context(cadata=text, cafile=beside(file) if file else None)
    if user.get('client-certificate'):
        context.load_cert_chain(beside(user['client-certificate']), beside(user['client-key']))
    return context
