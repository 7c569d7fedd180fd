"""`kstore://host:port,host:port`: the replicated store. The only module of kapi that knows it.

Query parameters: `ca`, `cert`, `key` (paths) for TLS; `deadline_s` for the longest time of one call.
Keys with a time to live share leases: one lease serves the writes of a short while, so that a flood of Events does
not become a flood of leases. The lease lives a little longer than asked, so that no key goes too early.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qs

from kapi.storage.base import (
    Batch,
    Change,
    Check,
    Compacted,
    Event,
    FutureRevision,
    KeyExists,
    KeyMissing,
    Page,
    StorageError,
    StorageFull,
    StorageUnavailable,
    ValueTooLarge,
    Versioned,
)
from kapi.storage.retry import delete_loop, update_loop
from kcore.config import split_address
from kcore.env import Env
from kcore.tls import Identity
from kstore import errors
from kstore.client import StoreClient, prefix_end
from kstore.model import KeyValue
from kstore.watchstream import WatchStream

LEASE_SHARE_S_MAX = 60.0
"""Longest time during which writes join one lease."""
LEASE_SHARE_FRACTION = 0.05
"""… but no longer than this part of the time to live."""
LEASE_KEYS_MAX = 1_000
"""Keys of one lease: what its expiry deletes at one revision."""


@dataclass(slots=True)
class _Lease:
    id: int
    until: float
    keys: int = 0


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except errors.Compacted as e:
        raise Compacted(str(e), oldest=e.compact_revision) from e
    except errors.FutureRevision as e:
        raise FutureRevision(str(e)) from e
    except errors.NoSpace as e:
        raise StorageFull(str(e)) from e
    except errors.TooLarge as e:
        raise ValueTooLarge(str(e)) from e
    except (errors.Timeout, errors.SessionExpired) as e:
        raise StorageUnavailable(f'the store did not answer in time: {e}') from e
    except errors.StoreError as e:
        kind = StorageUnavailable if e.retriable else StorageError
        raise kind(f'{type(e).__name__}: {e}') from e


class KstoreStorage:
    """A `Storage` over one store client."""

    def __init__(self, url: SplitResult, env: Env) -> None:
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        endpoints = [split_address(part) for part in url.netloc.split(',') if part]
        tls = _identity(query, env).client if 'ca' in query else None
        self._env = env
        self.client = StoreClient(endpoints, env, tls=tls, deadline_s=float(query.get('deadline_s', '5')))
        self._leases: dict[int, _Lease] = {}
        self._stream: WatchStream | None = None
        self._started = False

    async def start(self) -> None:
        if not self._started:
            await self.client.start()
            self._started = True

    async def close(self) -> None:
        await self.client.close()

    async def get(self, key: str) -> Versioned:
        with _translated():
            reply = await self.client.get(key.encode())
        if reply.kv is None:
            raise KeyMissing(key)
        return _versioned(reply.kv)

    async def list(self, prefix: str, *, rv: int = 0, limit: int = 0, after: str = '') -> Page:
        start = after.encode() + b'\x00' if after else prefix.encode()
        with _translated():
            reply = await self.client.range(start, prefix_end(prefix.encode()), limit=limit, revision=rv)
        items = [_versioned(kv) for kv in reply.kvs]
        return Page(items, rv or reply.revision, remaining=max(0, reply.count - len(items)) if reply.more else 0)

    async def create(self, key: str, value: bytes, *, ttl_s: int = 0) -> Versioned:
        with _translated():
            reply = await self.client.cas(key.encode(), 0, value, lease=await self._lease(ttl_s))
        if not reply.succeeded:
            raise KeyExists(key)
        return Versioned(key, value, reply.revision)

    async def update(self, key: str, change: Change, *, ttl_s: int = 0, origin: Versioned | None = None) -> Versioned:
        async def put_if(seen: Versioned, value: bytes) -> int | None:
            with _translated():
                lease = await self._lease(ttl_s)
                reply = await self.client.cas(key.encode(), seen.rv, value, lease=lease)
            return reply.revision if reply.succeeded else None

        return await update_loop(key, change, origin, self.get, put_if)

    async def delete(self, key: str, *, check: Check | None = None, origin: Versioned | None = None) -> Versioned:
        async def delete_if(seen: Versioned) -> int | None:
            with _translated():
                reply = await self.client.cad(key.encode(), seen.rv)
            return reply.revision if reply.succeeded else None

        return await delete_loop(key, check, origin, self.get, delete_if)

    async def current_revision(self) -> int:
        with _translated():
            return await self.client.revision()

    async def watch(self, prefix: str, *, from_rv: int) -> AsyncIterator[Batch]:
        start = prefix.encode()
        with _translated():
            watch = self.client.watch(start, prefix_end(start), revision=from_rv + 1, progress=True)
            async with watch as stream:
                self._stream = stream
                async for batch in stream:
                    yield Batch(batch.revision, [_event(e.type, e.kv, e.prev) for e in batch.events])

    def nudge(self) -> None:
        if self._stream is not None:
            self.client.request_progress(self._stream)

    async def _lease(self, ttl_s: int) -> int:
        """A lease with at least `ttl_s` to live, shared with other writes of about now; 0 for none."""
        if not ttl_s:
            return 0
        now = self._env.clock.monotonic()
        lease = self._leases.get(ttl_s)
        if lease is None or now >= lease.until or lease.keys >= LEASE_KEYS_MAX:
            share_s = min(LEASE_SHARE_S_MAX, ttl_s * LEASE_SHARE_FRACTION)
            granted = await self.client.lease_grant(ttl_s + round(share_s + 0.5))
            lease = self._leases[ttl_s] = _Lease(granted, now + share_s)
        lease.keys += 1
        return lease.id


def _versioned(kv: KeyValue) -> Versioned:
    return Versioned(kv.key.decode(), kv.value, kv.mod_revision)


def _event(kind: str, kv: KeyValue, prev: KeyValue | None) -> Event:
    before = prev.value if prev is not None else None
    if kind == 'delete':
        return Event(kv.key.decode(), kv.mod_revision, before or b'', before, deleted=True)
    return Event(kv.key.decode(), kv.mod_revision, kv.value, before)


def _identity(query: dict[str, str], env: Env) -> Identity:
    """Raises BadCertificate."""
    pair = (Path(query['cert']), Path(query.get('key', query['cert']))) if 'cert' in query else None
    return Identity(env, pair, (Path(query['ca']),))
