"""How the API server reaches node agents: HTTPS with its own client certificate, addresses from the Node object."""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp
import orjson
from yarl import URL

from kapi.config import ApiConfig
from kapi.errors import InternalError
from kapi.usage.figures import Unreachable
from kcore.env import Env
from kcore.tls import Identity

Obj = dict[str, Any]

KUBELET_PORT = 10250
CONNECT_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 256
"""Concurrent streams to all node agents; further ones wait for a free connection."""
SUMMARY_BYTES_MAX = 16 * 1024 * 1024
"""A node agent's larger summary is taken for nonsense."""


class Kubelets:
    """One connection pool to all nodes; opened at the first use."""

    def __init__(self, config: ApiConfig, env: Env) -> None:
        """Raises BadCertificate."""
        pair = None
        if config.kubelet_client_cert is not None and config.kubelet_client_key is not None:
            pair = config.kubelet_client_cert, config.kubelet_client_key
        self._identity = Identity(env, pair, (config.kubelet_ca or config.client_ca,))
        self._session: aiohttp.ClientSession | None = None

    @property
    def tls(self) -> ssl.SSLContext:
        """Trusts the agents' authority and shows our client certificate, as they are now. Raises BadCertificate."""
        return self._identity.client()

    def request(self, method: str, url: str | URL, **options: Any) -> Any:
        """An aiohttp request context, with the certificates as they are now."""
        return self._open().request(method, url, **{'ssl': self._identity.client(), **options})

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
            connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._session

    async def summary(self, node: Obj) -> Obj:
        """What a node and its pods use. Raises Unreachable."""
        try:
            url = f'{url_of(node)}/stats/summary'
            async with self.request('GET', url, params={'only_cpu_and_memory': 'true'}) as answer:
                body = await answer.content.read(SUMMARY_BYTES_MAX)
                answer.raise_for_status()
            found: Obj = orjson.loads(body)
        except (InternalError, aiohttp.ClientError, orjson.JSONDecodeError) as e:
            raise Unreachable(str(e)) from e
        return found

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def url_of(node: Obj) -> str:
    """`https://address:port` of a node's agent. Raises InternalError when the node does not say."""
    status = node.get('status') or {}
    port = (((status.get('daemonEndpoints') or {}).get('kubeletEndpoint')) or {}).get('Port') or KUBELET_PORT
    addresses = {a['type']: a['address'] for a in status.get('addresses') or ()}
    for kind in ('InternalIP', 'Hostname', 'ExternalIP'):
        if kind in addresses:
            host = f'[{addresses[kind]}]' if ':' in addresses[kind] else addresses[kind]
            return f'https://{host}:{port}'
    raise InternalError(f'no preferred addresses found; known addresses: {sorted(addresses)}')
