"""The API client: verbs over any `Resource`, plain dicts in and out, typed errors.

Concurrency: one `Client` serves a whole process on one event loop. Retries and failover are the transport's;
`guarded` gives a view whose writes are refused once the caller's lease is in doubt (fencing of a deposed leader).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Self

import aiohttp
import orjson

from kclient.errors import ApiError, Timeout, Unavailable, failure, from_status
from kclient.kubeconfig import ClientConfig
from kclient.model import Obj, ObjectList, PatchKind, Propagation, WatchEvent
from kclient.transport import READS, Call, HttpTransport, Observer
from kcore.env import Env
from kcore.meta.gvk import Resource
from kcore.turns import Turns

__all__ = ['Client', 'Obj', 'ObjectList', 'WatchEvent']

REQUEST_DEADLINE_S = 30.0
WATCH_TIMEOUT_S = 300.0
"""How long a watch is asked to last (up to twice that, at random, so that clients do not come back all at once)."""
WATCH_SILENCE_S = 30.0
"""Grace after a watch's own timeout before this side gives up on a server that has fallen silent."""
REQUESTS_AT_ONCE, PATIENCE_S = 16, 1.0
"""Requests that share a few connections; one that takes longer counts no more, so that who hangs delays nobody."""
FRAME_BYTES_MAX = 16 * 1024 * 1024
"""Longest watch frame; a longer one ends the watch with Unavailable."""

_PARTIAL = 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1'
_PARTIAL_LIST = 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1'
_PATCH_TYPES: Mapping[PatchKind, str] = {
    'merge': 'application/merge-patch+json',
    'strategic': 'application/strategic-merge-patch+json',
    'json': 'application/json-patch+json',
    'apply': 'application/apply-patch+yaml',
}


class Client:
    """Async context manager; may also be used without and closed with `close`."""

    def __init__(
        self, config: ClientConfig, env: Env, *, user_agent: str, observe: Observer = lambda answer: None
    ) -> None:
        """observe: hears of every request that was sent, retries included; for metrics."""
        self.env = env
        self._transport = HttpTransport(config, env, user_agent, observe)
        self._turns = Turns(REQUESTS_AT_ONCE, PATIENCE_S)
        self._check: Callable[[], float] | None = None

    @property
    def config(self) -> ClientConfig:
        """As its files are; they may change."""
        return self._transport.config

    @property
    def server(self) -> str:
        """URL of the server that the next request goes to."""
        return self._transport.server

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()

    def guarded(self, check: Callable[[], float]) -> Client:
        """The same connections; before every write `check()` runs and may raise (`LeaderElector.check`).

        It returns the seconds for which it holds: a write that waits longer, for a connection or because the server
        asked for a pause, is given up.
        """
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._check = check
        return view

    async def get(self, r: Resource, name: str, namespace: str | None = None, *, subresource: str | None = None) -> Obj:
        """Raises NotFound."""
        return await self._json('GET', r.path(namespace, name, subresource))

    async def list(
        self,
        r: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = '',
        field_selector: str = '',
        limit: int = 0,
        continue_: str = '',
        resource_version: str = '',
        metadata_only: bool = False,
    ) -> ObjectList:
        """One page when `limit` is given, else everything. `resource_version='0'` accepts any cached state.

        Items get apiVersion and kind, which servers leave out of lists. Raises Expired for an old `continue_`.
        """
        params = _params(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            limit=str(limit) if limit else '',
            resourceVersion=resource_version,
        )
        params.update({'continue': continue_} if continue_ else {})
        headers = {'Accept': _PARTIAL_LIST} if metadata_only else None
        body = await self._json('GET', r.path(namespace), params=params, headers=headers)
        meta = body.get('metadata') or {}
        items = body.get('items') or []
        for item in items:
            item.setdefault('apiVersion', r.api_version)
            item.setdefault('kind', r.kind)
        return ObjectList(items, str(meta.get('resourceVersion') or ''), str(meta.get('continue') or ''))

    async def create(self, r: Resource, obj: Obj, *, subresource: str | None = None, name: str | None = None) -> Obj:
        """Namespace (and `name`, for a subresource such as binding) come from `obj.metadata` unless given.

        Raises AlreadyExists, Forbidden (also for a namespace that is terminating), Invalid.
        """
        meta = obj.get('metadata') or {}
        target = name or meta.get('name') if subresource else None
        return await self._json('POST', r.path(meta.get('namespace'), target, subresource), body=_typed(r, obj))

    async def update(self, r: Resource, obj: Obj, *, subresource: str | None = None) -> Obj:
        """Replace; with metadata.resourceVersion only that revision. Raises Conflict, NotFound, Invalid."""
        meta = obj['metadata']
        path = r.path(meta.get('namespace'), meta['name'], subresource)
        return await self._json('PUT', path, body=_typed(r, obj))

    async def patch(
        self,
        r: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        kind: PatchKind = 'merge',
        subresource: str | None = None,
        field_manager: str = '',
        force: bool = False,
    ) -> Obj:
        """A merge patch with metadata.resourceVersion inside is conditional. Raises Conflict, NotFound, Invalid."""
        params = _params(fieldManager=field_manager, force='true' if force else '')
        headers = {'Content-Type': _PATCH_TYPES[kind]}
        path = r.path(namespace, name, subresource)
        return await self._json('PATCH', path, params=params, body=patch, headers=headers)

    async def delete(
        self,
        r: Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_s: int | None = None,
        propagation: Propagation | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Obj:
        """The object (still there, when finalizers or grace hold it) or a Status.

        Raises NotFound, and Conflict when `uid` or `resource_version` do not match.
        """
        return await self._json(
            'DELETE', r.path(namespace, name), body=_delete_options(grace_period_s, propagation, uid, resource_version)
        )

    async def delete_collection(
        self, r: Resource, namespace: str | None = None, *, label_selector: str = '', field_selector: str = ''
    ) -> Obj:
        params = _params(labelSelector=label_selector, fieldSelector=field_selector)
        return await self._json(
            'DELETE', r.path(namespace), params=params, body=_delete_options(None, None, None, None)
        )

    async def watch(
        self,
        r: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = '',
        label_selector: str = '',
        field_selector: str = '',
        timeout_s: float | None = None,
        bookmarks: bool = True,
        initial_events: bool = False,
        metadata_only: bool = False,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Events after `resource_version` ('' or '0': first ADDED for what exists), until the server ends the watch.

        initial_events: what exists comes first, at least as new as now, then a bookmark with the annotation
        `k8s.io/initial-events-end`. metadata_only: objects are PartialObjectMetadata.

        An ERROR event carries a Status; 410 means: list again. Raises Unavailable when the connection breaks, and
        ApiError when the watch is refused.
        """
        lasting = timeout_s if timeout_s is not None else WATCH_TIMEOUT_S * (1 + self.env.rng.random())
        params = _params(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            resourceVersion=resource_version,
            allowWatchBookmarks='true' if bookmarks else '',
        )
        params |= {'watch': 'true', 'timeoutSeconds': str(max(1, int(lasting)))}
        params |= {'sendInitialEvents': 'true', 'resourceVersionMatch': 'NotOlderThan'} if initial_events else {}
        headers = {'Accept': _PARTIAL} if metadata_only else {}
        call = Call('GET', r.path(namespace), params, headers=headers, deadline_s=REQUEST_DEADLINE_S)
        response = await self._transport.send(call)
        try:
            if response.status >= 400:
                raise await _error(response)
            async for line in _frames(response, lasting + WATCH_SILENCE_S):
                frame = orjson.loads(line)
                yield WatchEvent(frame['type'], frame['object'])
        finally:
            response.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | Obj | None = None,
        headers: Mapping[str, str] | None = None,
        deadline_s: float | None = REQUEST_DEADLINE_S,
    ) -> aiohttp.ClientResponse:
        """Raw: status is not looked at, the body is the caller's to read or `release` (logs, discovery).

        `deadline_s` covers the time to the headers only.
        """
        deadline_s = self._guard(method, deadline_s)
        data = orjson.dumps(body) if isinstance(body, dict) else body
        all_headers = {'Content-Type': 'application/json'} if isinstance(body, dict) else {}
        return await self._transport.send(
            Call(method, path, params or {}, data, all_headers | dict(headers or {}), deadline_s)
        )

    def _guard(self, method: str, deadline_s: float | None) -> float | None:
        """The deadline of a request; raises what the check raises."""
        if self._check is None or method in READS:
            return deadline_s
        left = self._check()
        return left if deadline_s is None else min(left, deadline_s)

    async def _json(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Obj:
        data = None if body is None else orjson.dumps(body)
        sent = {'Content-Type': 'application/json'} if data is not None else {}
        async with self._turns.turn():
            deadline_s = self._guard(method, REQUEST_DEADLINE_S)
            call = Call(method, path, params or {}, data, sent | dict(headers or {}), deadline_s)
            response = await self._transport.send(call)
            if response.status >= 400:
                raise await _error(response)
            raw = await _body(response)
        try:
            decoded = orjson.loads(raw)
        except orjson.JSONDecodeError as e:
            raise Unavailable(failure(503, 'ServiceUnavailable', f'{method} {path}: answer is not JSON: {e}')) from e
        return decoded if isinstance(decoded, dict) else {'items': decoded}


def _params(**named: str) -> dict[str, str]:
    return {k: v for k, v in named.items() if v}


def _typed(r: Resource, obj: Obj) -> Obj:
    """`obj` with apiVersion and kind; foreign bodies (Binding, Eviction, Scale) bring their own."""
    if 'apiVersion' in obj and 'kind' in obj:
        return obj
    return {'apiVersion': r.api_version, 'kind': r.kind, **obj}


def _delete_options(
    grace_period_s: int | None, propagation: Propagation | None, uid: str | None, resource_version: str | None
) -> Obj:
    options: Obj = {'apiVersion': 'v1', 'kind': 'DeleteOptions'}
    if grace_period_s is not None:
        options['gracePeriodSeconds'] = grace_period_s
    if propagation is not None:
        options['propagationPolicy'] = propagation
    preconditions = {k: v for k, v in (('uid', uid), ('resourceVersion', resource_version)) if v is not None}
    if preconditions:
        options['preconditions'] = preconditions
    return options


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; the deadline of a request ends with its headers, so the body gets one of its own."""
    try:
        if response.content.is_eof():  # as with most answers, it came with the headers
            return await response.read()
        async with asyncio.timeout(REQUEST_DEADLINE_S):
            return await response.read()
    except TimeoutError:
        response.close()
        raise Timeout(failure(504, 'Timeout', f'{response.url.path}: the body did not arrive in time')) from None
    except aiohttp.ClientError as e:
        raise Unavailable(failure(503, 'ServiceUnavailable', f'{response.url.path}: {e}')) from e


async def _error(response: aiohttp.ClientResponse) -> ApiError:
    """The Status that a failure carries, or one made from what there is."""
    raw = await _body(response)
    retry_after = response.headers.get('Retry-After', '')
    try:
        status = orjson.loads(raw)
    except orjson.JSONDecodeError:
        status = None
    if not isinstance(status, dict) or status.get('kind') != 'Status':
        text = raw.decode('utf-8', 'replace').strip()[:500] or response.reason or 'request failed'
        status = failure(response.status, '', text)
    status.setdefault('code', response.status)
    return from_status(status, retry_after_s=float(retry_after) if retry_after.isdigit() else None)


async def _frames(response: aiohttp.ClientResponse, patience_s: float) -> AsyncGenerator[bytes, None]:
    """Lines of a watch stream. A clean end of the stream ends the iteration."""
    rest = b''
    give_up = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            async with asyncio.timeout_at(give_up):
                chunk = await response.content.readany()
        except (aiohttp.ClientError, TimeoutError, RuntimeError) as e:
            # RuntimeError is how aiohttp says that our own side closed the connection.
            raise Unavailable(failure(503, 'ServiceUnavailable', f'{response.url.path}: watch broke: {e!r}')) from e
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b'\n')
        if len(rest) > FRAME_BYTES_MAX:
            raise Unavailable(failure(503, 'ServiceUnavailable', f'{response.url.path}: watch frame is too long'))
        for line in lines:
            if line.strip():
                yield line
