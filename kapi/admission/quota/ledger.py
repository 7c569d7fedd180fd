"""Exact reservations against a ResourceQuota, on any number of API servers at once.

Theory: what a namespace uses is what is stored plus what is on its way to be stored. What is on its way stands as a
list of pending reservations in an annotation of the quota, and every reservation is a compare-and-swap of that object,
so two servers never both take the last place. A server counts what is stored from its watch cache, which it first
brings up to the present, and to the quota's own revision: whatever a colleague has struck off the list as stored is
then in the cache. A reservation is struck off when its key has changed since, when its write failed, or when no
request can still be under way. Differs from upstream, which trusts `status.used` and a controller to correct it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from kapi.registry.catalog import key_prefix
from kapi.storage.base import KeyMissing, Versioned
from kapi.storage.cache import Cache
from kapi.storage.codec import decode, encode
from kcore.env import Env
from kcore.meta.gvk import Resource
from kcore.meta.quantity import QuantityError, format, format_of, parse
from kcore.meta.quota import Amounts, in_scope, sum_up, usage_of

Obj = dict[str, Any]
QUOTAS = '/registry/resourcequotas/'
PENDING = 'quota.kubeling.dev/pending'
UNDER_WAY_S = 75.0
"""No create can still be under way after this long: the longest request plus the longest store write."""
PENDING_MAX = 1_000
"""Reservations of one quota under way at once; more are refused as if the quota were exceeded."""


class Exceeded(Exception):
    """The quota has no room; the text is upstream's."""


@dataclass(frozen=True, slots=True)
class Change:
    """A write that wants `amounts` more. `key` is where the object will be stored."""

    resource: Resource
    key: str
    amounts: Amounts


class Ledger:
    def __init__(self, cache: Cache, env: Env) -> None:
        self._cache = cache
        self._env = env
        self._locks: dict[str, asyncio.Lock] = {}
        """One writer a quota and server, so that only servers contend; dropped when nobody waits."""

    def quotas(self, namespace: str) -> list[Obj]:
        return [e.obj for e in self._cache.resource(QUOTAS).select(f'{QUOTAS}{namespace}/')]

    async def reserve(self, key: str, change: Change, *, dry_run: bool) -> None:
        """Raises Exceeded. A quota that is gone limits nothing."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                await self._cache.fresh()
                await self._swap(key, change, dry_run=dry_run)
        finally:
            if not lock.locked():
                self._locks.pop(key, None)

    async def _swap(self, key: str, change: Change, *, dry_run: bool) -> None:
        async def put(current: Versioned) -> bytes:
            await self._cache.reach(current.rv)
            quota = decode(current.value, current.rv)
            self._enter(quota, change)
            return encode(quota)

        try:
            if dry_run:
                await put(await self._cache.get(key))
            else:
                await self._cache.update(key, put)
        except KeyMissing:
            return

    def _enter(self, quota: Obj, change: Change) -> None:
        hard = (quota.get('spec') or {}).get('hard') or {}
        wanted = {k: v for k, v in change.amounts.items() if k in hard and v > 0}
        if not wanted:
            return
        pending = [p for p in pending_of(quota) if not self._landed(p)]
        used = sum_up([self._stored(quota, hard), *(_amounts(p) for p in pending)])
        over = sorted(k for k, v in wanted.items() if used.get(k, Decimal(0)) + v > parse(hard[k]))
        if over or len(pending) >= PENDING_MAX:
            raise Exceeded(_text(quota, over or sorted(wanted), wanted, used, hard))
        texts = {k: str(v) for k, v in wanted.items()}
        deadline = self._env.clock.wall().timestamp() + UNDER_WAY_S
        pending.append([change.key, self._cache.revision, round(deadline, 3), texts])
        quota['metadata'].setdefault('annotations', {})[PENDING] = orjson.dumps(pending).decode()
        after = sum_up([used, wanted])
        status = quota.setdefault('status', {})
        status['hard'] = dict(hard)
        status['used'] = {k: format(after.get(k, Decimal(0)), format_of(hard[k])) for k in hard}

    async def give_back(self, key: str, changed_key: str) -> None:
        """The write came to nothing: strike its reservation off, so that nobody waits for its deadline."""

        async def put(current: Versioned) -> bytes:
            quota = decode(current.value, current.rv)
            pending = pending_of(quota)
            mine = next((p for p in reversed(pending) if p[0] == changed_key), None)
            if mine is None:
                return current.value
            pending.remove(mine)
            quota['metadata']['annotations'][PENDING] = orjson.dumps(pending).decode()
            used = (quota.get('status') or {}).get('used') or {}
            for name, amount in _amounts(mine).items():
                if name in used:
                    used[name] = format(max(Decimal(0), parse(used[name]) - amount), format_of(used[name]))
            return encode(quota)

        try:
            await self._cache.update(key, put)
        except KeyMissing:
            return

    def _landed(self, entry: list[Any]) -> bool:
        """Whether the write is in the cache (also when the object has gone again), or can no longer be under way."""
        key, since, deadline = str(entry[0]), int(entry[1]), float(entry[2])
        if deadline <= self._env.clock.wall().timestamp():
            return True
        resource = self._cache.resource(_prefix(key))
        found = resource.entries.get(key)
        if found is not None:
            return found.rv > since
        return since >= resource.floor and any(e.entry.key == key for e in resource.since(since, key))

    def _stored(self, quota: Obj, hard: Iterable[str]) -> Amounts:
        """What the namespace holds now, of the kinds that the quota limits."""
        namespace = quota['metadata']['namespace']
        parts: list[Amounts] = []
        for resource in kinds_of(hard):
            prefix = key_prefix(resource)
            entries = self._cache.resource(prefix).select(f'{prefix}{namespace}/')
            parts += [_safe_usage(resource, e.obj) for e in entries if in_scope(quota, resource.qualified, e.obj)]
        return sum_up(parts)


def _safe_usage(resource: Resource, obj: Obj) -> Amounts:
    try:
        return usage_of(resource.qualified, obj)
    except QuantityError:
        return {}


def _prefix(key: str) -> str:
    parts = key.split('/')
    return '/'.join(parts[:-2]) + '/'


def pending_of(quota: Obj) -> list[list[Any]]:
    """[key, revision, deadline, amounts] of each reservation under way."""
    text = (quota['metadata'].get('annotations') or {}).get(PENDING)
    if not text:
        return []
    try:
        found = orjson.loads(text)
        return [p for p in found if isinstance(p, list) and len(p) == 4]
    except ValueError:
        return []


def _amounts(entry: list[Any]) -> Amounts:
    return {k: parse(v) for k, v in entry[3].items()}


def kinds_of(hard: Iterable[str]) -> list[Resource]:
    """The resources whose objects the names of a quota's `hard` speak of."""
    found: dict[tuple[str, str], None] = {}
    for name in hard:
        if name.startswith('count/'):
            plural, _, group = name.removeprefix('count/').partition('.')
            found[group, plural] = None
        elif name.startswith('services'):
            found['', 'services'] = None
        elif name in {'configmaps', 'secrets', 'replicationcontrollers', 'resourcequotas'}:
            found['', name] = None
        elif name.endswith(('persistentvolumeclaims', 'requests.storage')):
            found['', 'persistentvolumeclaims'] = None
        else:
            found['', 'pods'] = None
    return [Resource(group, 'v1', plural, '') for group, plural in found]


def _text(quota: Obj, names: Sequence[str], wanted: Amounts, used: Amounts, hard: dict[str, str]) -> str:
    def listed(amounts: dict[str, Decimal]) -> str:
        return ','.join(f'{n}={format(amounts.get(n, Decimal(0)), format_of(hard[n]))}' for n in names)

    limits = {n: parse(hard[n]) for n in names}
    return (
        f'exceeded quota: {quota["metadata"]["name"]}, requested: {listed(wanted)}, used: {listed(used)}, '
        f'limited: {listed(limits)}'
    )
