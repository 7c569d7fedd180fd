"""How to reach a server that an object names: by URL, by Service, trusting a CA bundle.

A Service is resolved to a ready address of its EndpointSlices (or Endpoints), because the API server is no pod and
needs no virtual address; the certificate is checked against the Service's name.
"""

from __future__ import annotations

import base64
import binascii
import random
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from kapi.storage.cache import Cache
from kcore.env import Disk

Obj = dict[str, Any]

CONNECT_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 256
"""Concurrent requests to all such servers; further ones wait for a free connection."""
TLS_CONTEXTS_MAX = 256
"""TLS settings kept by CA bundle; one more drops them all."""
_SERVICES = '/registry/services/'
_ENDPOINTS = '/registry/endpoints/'
_SLICES = '/registry/discovery.k8s.io/endpointslices/'


class EndpointUnknown(Exception):
    """The Service is missing, has no such port, or no ready address."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a server is and how it proves itself."""

    url: str = ''
    """Scheme, host and port; empty when a Service is named."""
    namespace: str = ''
    service: str = ''
    port: int = 443
    path: str = '/'
    ca_bundle: str = ''
    """PEM, base64."""
    insecure: bool = False
    """Do not check the certificate."""

    @property
    def host(self) -> str:
        """The name that the certificate must have."""
        return f'{self.service}.{self.namespace}.svc'

    @staticmethod
    def of_client_config(config: Mapping[str, Any]) -> Backend:
        """A webhook's clientConfig."""
        bundle = config.get('caBundle') or ''
        if config.get('url'):
            parts = urlsplit(config['url'])
            path = (parts.path or '/') + (f'?{parts.query}' if parts.query else '')
            return Backend(url=f'{parts.scheme}://{parts.netloc}', path=path, ca_bundle=bundle)
        service = config.get('service') or {}
        return Backend(
            namespace=service.get('namespace') or '', service=service.get('name') or '',
            port=service.get('port') or 443, path=service.get('path') or '/', ca_bundle=bundle,
        )  # fmt: skip


class Resolver:
    """Services to addresses, from the watch cache."""

    def __init__(self, cache: Cache, rng: random.Random) -> None:
        self._cache = cache
        self._rng = rng

    def address(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        """A ready host and port behind the Service, chosen by chance. Raises EndpointUnknown."""
        entry = self._cache.peek(f'{_SERVICES}{namespace}/{name}')
        if entry is None:
            raise EndpointUnknown(f'service "{name}" not found in namespace "{namespace}"')
        spec = entry.obj.get('spec') or {}
        wanted = next((p for p in spec.get('ports') or () if p.get('port') == port), None)
        if wanted is None:
            raise EndpointUnknown(f'no service port {port} found for service "{name}"')
        if spec.get('type') == 'ExternalName':
            return str(spec.get('externalName')), port
        ready = list(self._ready(namespace, name, wanted))
        if not ready:
            raise EndpointUnknown(f'no endpoints available for service "{name}"')
        return self._rng.choice(ready)

    def _ready(self, namespace: str, name: str, port: Obj) -> Iterator[tuple[str, int]]:
        port_name = port.get('name') or ''
        found = False
        for entry in self._cache.resource(_SLICES).select(f'{_SLICES}{namespace}/'):
            labels = entry.obj['metadata'].get('labels') or {}
            if labels.get('kubernetes.io/service-name') != name:
                continue
            for number in (p.get('port') for p in entry.obj.get('ports') or () if (p.get('name') or '') == port_name):
                for endpoint in entry.obj.get('endpoints') or ():
                    if (endpoint.get('conditions') or {}).get('ready') is not False and number:
                        found = True
                        yield from ((address, number) for address in endpoint.get('addresses') or ())
        if found:
            return
        legacy = self._cache.peek(f'{_ENDPOINTS}{namespace}/{name}')
        for subset in (legacy.obj.get('subsets') or ()) if legacy is not None else ():
            for number in (p.get('port') for p in subset.get('ports') or () if (p.get('name') or '') == port_name):
                yield from ((a['ip'], number) for a in subset.get('addresses') or ())


class Transport:
    """Requests to such servers; one pool, opened at the first use."""

    def __init__(self, resolver: Resolver, disk: Disk, client_cert: tuple[str, str] | None = None) -> None:
        self._resolver = resolver
        self._disk = disk
        self._client_cert = client_cert
        """Files (certificate, key) by which we are known to aggregated servers."""
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[tuple[str, bool, bytes], ssl.SSLContext] = {}

    def url(self, backend: Backend, path: str) -> str:
        """Raises EndpointUnknown."""
        if backend.url:
            return backend.url + path
        host, port = self._resolver.address(backend.namespace, backend.service, backend.port)
        return f'https://[{host}]:{port}{path}' if ':' in host else f'https://{host}:{port}{path}'

    def request(self, backend: Backend, method: str, path: str, **options: Any) -> Any:
        """An aiohttp request context. Raises EndpointUnknown; ssl.SSLError for a bad CA bundle."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
            connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        if not backend.url:
            options['server_hostname'] = backend.host
            options.setdefault('headers', {})['Host'] = backend.host
        url = self.url(backend, path)
        return self._session.request(method, url, ssl=self._tls(backend), allow_redirects=False, **options)

    def _tls(self, backend: Backend) -> ssl.SSLContext:
        key = (backend.ca_bundle, backend.insecure, self._certificate())
        found = self._contexts.get(key)
        if found is None:
            if len(self._contexts) >= TLS_CONTEXTS_MAX:
                self._contexts.clear()
            found = self._contexts[key] = self._make_tls(backend)
        return found

    def _certificate(self) -> bytes:
        """Ours as it is now; it rotates."""
        return self._disk.read(Path(self._client_cert[0])) if self._client_cert is not None else b''

    def _make_tls(self, backend: Backend) -> ssl.SSLContext:
        if backend.insecure:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif backend.ca_bundle:
            try:
                pem = base64.b64decode(backend.ca_bundle, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError) as e:
                raise ssl.SSLError(f'the CA bundle cannot be read: {e}') from None
            context = ssl.create_default_context(cadata=pem)
        else:
            context = ssl.create_default_context()
        if self._client_cert is not None:
            context.load_cert_chain(*self._client_cert)
        return context

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
