"""One AdmissionReview to one webhook: HTTPS to a URL or to an endpoint of a Service, verified with its caBundle.

A Service is reached at one of its ready endpoints; the certificate must still be for `<service>.<namespace>.svc`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ssl
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from kapi.dialed import said
from kapi.storage.cache import Cache
from kcore.env import Env

Obj = dict[str, Any]
TIMEOUT_S = 10
VERSIONS = ('v1', 'v1beta1')
"""Of AdmissionReview; a webhook gets the first of its list that is one of them."""
ANSWER_BYTES_MAX = 3 * 1024 * 1024
"""A longer answer is a failure of the webhook."""
USER_AGENT = 'kube-apiserver-admission'
CONNECTIONS_MAX = 100
"""Calls under way at once, all webhooks together; further ones wait within their deadline."""
CONTEXTS_MAX = 256
"""TLS settings kept, by caBundle; the oldest goes first."""
SLICES = '/registry/discovery.k8s.io/endpointslices/'


class CallFailed(Exception):
    """No usable answer; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    url: str
    shown: str
    """As error texts name it."""
    server_name: str | None


class WebhookClient:
    def __init__(self, cache: Cache, env: Env) -> None:
        self._cache = cache
        self._env = env
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[bytes, ssl.SSLContext] = {}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, hook: Obj, request: Obj) -> Obj:
        """The answer's `response`, its patch decoded to bytes. Raises CallFailed with upstream's sentence."""
        config = hook.get('clientConfig') or {}
        timeout_s = hook.get('timeoutSeconds') or TIMEOUT_S
        version = next((v for v in hook.get('admissionReviewVersions') or () if v in VERSIONS), 'v1')
        review = {'apiVersion': f'admission.k8s.io/{version}', 'kind': 'AdmissionReview', 'request': request}
        shown = shown_url(config, timeout_s)
        try:
            target = self._target(config, timeout_s)
            answer = await self._post(target, self._context(config.get('caBundle') or ''), review, timeout_s)
        except TimeoutError:
            raise CallFailed(f'failed to call webhook: Post "{shown}": context deadline exceeded') from None
        except (aiohttp.ClientError, OSError, ssl.SSLError, CallFailed) as e:
            raise CallFailed(f'failed to call webhook: Post "{shown}": {said(e)}') from None
        try:
            return verified(answer, version, request['uid'])
        except ValueError as e:
            raise CallFailed(f'received invalid webhook response: {e}') from None

    def _target(self, config: Obj, timeout_s: int) -> Target:
        shown = shown_url(config, timeout_s)
        service = config.get('service')
        if not service:
            return Target(shown, shown, None)
        name, namespace = service['name'], service['namespace']
        host, port = self._endpoint(namespace, name, int(service.get('port') or 443))
        path = (service.get('path') or '/').lstrip('/')
        return Target(f'https://{host}:{port}/{path}?timeout={timeout_s}s', shown, f'{name}.{namespace}.svc')

    def _endpoint(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        entry = self._cache.peek(f'/registry/services/specs/{namespace}/{name}') or self._cache.peek(
            f'/registry/services/{namespace}/{name}'
        )
        if entry is None:
            raise CallFailed(f'service "{name}" not found')
        spec = entry.obj.get('spec') or {}
        known = next((p for p in spec.get('ports') or () if p.get('port') == port), None)
        if known is None:
            raise CallFailed(f'no service port {port} found for service "{name}"')
        for found in self._cache.resource(SLICES).select(f'{SLICES}{namespace}/'):
            labels = found.obj['metadata'].get('labels') or {}
            if labels.get('kubernetes.io/service-name') != name:
                continue
            wanted = known.get('name') or ''
            target = next((p['port'] for p in found.obj.get('ports') or () if (p.get('name') or '') == wanted), None)
            ready = [
                address
                for e in found.obj.get('endpoints') or ()
                if (e.get('conditions') or {}).get('ready') is not False
                for address in e.get('addresses') or ()
            ]
            if target and ready:
                return self._env.rng.choice(ready), int(target)
        raise CallFailed(f'no endpoints available for service "{name}"')

    def _context(self, bundle: str) -> ssl.SSLContext:
        key = hashlib.sha256(bundle.encode()).digest()
        found = self._contexts.get(key)
        if found is None:
            found = ssl.create_default_context(cadata=base64.b64decode(bundle).decode() if bundle else None)
            if len(self._contexts) >= CONTEXTS_MAX:
                self._contexts.pop(next(iter(self._contexts)))
            self._contexts[key] = found
        return found

    async def _post(self, target: Target, tls: ssl.SSLContext, review: Obj, timeout_s: int) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX))
        body, timeout = orjson.dumps(review), aiohttp.ClientTimeout(total=timeout_s)
        headers = {'Content-Type': 'application/json', 'Accept': 'application/json', 'User-Agent': USER_AGENT}
        async with self._session.post(
            target.url, data=body, headers=headers, ssl=tls, server_hostname=target.server_name, timeout=timeout,
            allow_redirects=False,
        ) as reply:  # fmt: skip
            answer = await reply.content.read(ANSWER_BYTES_MAX + 1)
            while not reply.content.at_eof() and len(answer) <= ANSWER_BYTES_MAX:
                answer += await reply.content.read(ANSWER_BYTES_MAX + 1 - len(answer))
            if reply.status != 200:
                raise CallFailed(f'the server answered with status {reply.status}')
            if len(answer) > ANSWER_BYTES_MAX:
                raise CallFailed(f'the answer exceeds {ANSWER_BYTES_MAX} bytes')
            return answer


def shown_url(config: Obj, timeout_s: int) -> str:
    service = config.get('service')
    if service:
        path = (service.get('path') or '/').lstrip('/')
        port = service.get('port') or 443
        return f'https://{service.get("name")}.{service.get("namespace")}.svc:{port}/{path}?timeout={timeout_s}s'
    url = str(config.get('url') or '')
    return f'{url}{"&" if "?" in url else "?"}timeout={timeout_s}s'


def verified(answer: bytes, version: str, uid: str) -> Obj:
    """The `response` of a review, as its version wants it. Raises ValueError.

    v1 echoes uid and type and names the patch's type; v1beta1 need not. Source: webhook/request/admissionreview.go.
    """
    try:
        review = orjson.loads(answer)
        response: Obj = dict(review['response'])
    except (ValueError, TypeError, KeyError):
        raise ValueError('the answer is no AdmissionReview with a response') from None
    if version == 'v1':
        if response.get('uid') != uid:
            raise ValueError(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
        told = f'{review.get("apiVersion", "")}, Kind={review.get("kind", "")}'
        if told != 'admission.k8s.io/v1, Kind=AdmissionReview':
            raise ValueError(f'expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {told}')
    given, kind = response.get('patch'), response.get('patchType')
    if not given:
        if version == 'v1' and kind:
            raise ValueError('webhook returned response.patchType but not response.patch')
        return response
    if version == 'v1' and not kind:
        raise ValueError('webhook returned response.patch but not response.patchType')
    if version == 'v1' and kind != 'JSONPatch':
        raise ValueError(f'webhook returned invalid response.patchType of "{kind}"')
    try:
        response['patch'] = base64.b64decode(given, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ValueError('response.patch is not base64') from None
    return response
