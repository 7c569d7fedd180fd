"""Do all members hold the same? Each follower compares its contents with the leader's, every so often, by default.

Both sides compute a checksum of all key-values as of one revision, from the tables themselves, in slices between other
work; so decay on the disk and a state machine that diverged are both found. A follower that differs does not know which
side is wrong; it stops serving clients and says so, which is better than an answer that may be false. The way out: the
operator compares all members (`python -m kstore hash`) and replaces the odd one.

Theory: etcd's corruption check (server/etcdserver/corrupt.go), which is off by default there.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, NoReturn

import structlog

from kcore.tasks import start_detached
from kstore.errors import Corrupt, Overloaded, StoreError
from kstore.mvcc import select
from kstore.mvcc.store import Store
from kstore.node import Node
from kstore.proposals import Proposals, Ticket
from kstore.wire import Op, failure, pack, split_result, success

log = structlog.get_logger('kstore.verify')

SLICE_KEYS = 256
"""Keys hashed before others get a turn."""
HASHES_MAX = 4
"""Hashes under way at one member; one more is refused."""


async def content_hash(store: Store, revision: int) -> int:
    """CRC-32 of all packed key-values at `revision`. Raises Compacted, FutureRevision, also half-way."""
    crc, start = 0, b'\x00'
    while True:
        page = store.page(start, revision, SLICE_KEYS)
        for kv in page:
            crc = zlib.crc32(kv, crc)
        if len(page) < SLICE_KEYS:
            return crc
        start = select.key_of(page[-1]) + b'\x00'
        await asyncio.sleep(0)


class Verifier:
    """See the module's text."""

    def __init__(self, store: Store, node: Node, proposals: Proposals, interval_s: float) -> None:
        """interval_s: 0 for never."""
        self._store = store
        self._node = node
        self._proposals = proposals
        self._interval_s = interval_s
        self._running = 0
        self.corrupt = ''
        """Why this member does not serve; empty while it does."""
        self.checks = 0
        """Comparisons that found no difference."""

    def serve(self, revision: int, respond: Callable[[bytes], None]) -> None:
        """Answer with `[revision, hash]`; revision 0 means now. Raises Overloaded."""
        if self._running >= HASHES_MAX:
            raise Overloaded(f'more than {HASHES_MAX} hashes are under way')
        self._running += 1
        start_detached('hash', self._answer(revision or self._store.revision, respond))

    def lead(self, ticket: Ticket) -> None:
        """A follower asks."""
        try:
            self.serve(ticket.body, lambda result: self._proposals.finish(ticket, result))
        except StoreError as e:
            self._proposals.finish(ticket, failure(e))

    async def _answer(self, revision: int, respond: Callable[[bytes], None]) -> None:
        try:
            respond(success(pack([revision, await content_hash(self._store, revision)])))
        except StoreError as e:
            respond(failure(e))
        finally:
            self._running -= 1

    async def run(self) -> NoReturn:
        """Compare, for ever."""
        while True:
            await asyncio.sleep(self._interval_s or 3_600.0)
            if self._interval_s and not self._node.is_leader and self._node.leader_id:
                try:
                    await self.check()
                except StoreError as e:
                    log.info('contents were not compared', err=str(e))

    async def check(self) -> None:
        """Compare once. Raises StoreError when that is not possible now."""
        revision = self._store.revision
        mine = await content_hash(self._store, revision)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def respond(result: bytes) -> None:
            if not answer.done():
                answer.set_result(result)

        leader = self._node.leader_id
        self._proposals.submit(Op.HASH, revision, respond)
        code, body = split_result(await answer)
        if code:
            raise StoreError(str(body[0]))
        if body == [revision, mine]:
            self.checks += 1
            return
        self.corrupt = (
            f'contents differ from leader {leader} at revision {revision}: {mine:08x} here, {body[1]:08x} there. '
            'Compare all members with `hash`; then remove the odd one, empty its data directory and add it anew'
        )
        log.error('contents differ from the leader, this member stops serving', err=self.corrupt)

    def guard(self, op: Any) -> None:
        """Raises Corrupt for what a member that differs must not answer."""
        if self.corrupt and op not in (Op.STATUS, Op.HASH, Op.SNAPSHOT):
            raise Corrupt(self.corrupt)
