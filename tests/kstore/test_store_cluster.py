"""Clients and members over real sockets: one member, three members, and members that go away."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from kcore.env import Env
from kstore.client import StoreClient
from kstore.errors import (
    BadRequest,
    Compacted,
    FutureRevision,
    LeaseNotFound,
    NoLeader,
    Stopped,
    StoreError,
    Timeout,
    TooLarge,
    Unreachable,
)
from kstore.fsm import Command
from kstore.model import NO_END, Do, Event, Relation, Target, WatchBatch
from kstore.mvcc.txn import VALUE_BYTES_MAX
from kstore.watchstream import WatchStream
from kstore.wire import Op

Stores = Callable[..., Awaitable[Any]]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return int(s.getsockname()[1])


async def take(stream: WatchStream, count: int) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(10):
        while len(events) < count:
            events += (await anext(stream)).events
    return events


@pytest.mark.parametrize('members', [1, 3])
async def test_writes_reads_and_compare_and_swap(stores: Stores, members: int):
    client = await (await stores(members)).client()
    first = await client.put(b'/a', b'1')
    assert (await client.get(b'/a')).kv == (b'/a', b'1', first.revision, first.revision, 1, 0)
    assert not (await client.cas(b'/a', 0, b'2')).succeeded
    lost = await client.cas(b'/a', 99, b'2')
    assert lost.kv is not None
    assert lost.kv.value == b'1'
    won = await client.cas(b'/a', first.revision, b'2')
    assert (won.succeeded, won.revision) == (True, first.revision + 1)
    created = await client.cas(b'/new', 0, b'x')
    assert created.succeeded
    assert (await client.get(b'/a', revision=first.revision)).kv.value == b'1'
    gone = await client.cad(b'/new', created.revision)
    assert (gone.succeeded, gone.kv.value) == (True, b'x')
    assert (await client.get(b'/new')).kv is None
    assert (await client.delete(b'/a')).deleted == 1
    assert await client.revision() == gone.revision + 1


async def test_a_txn_takes_the_branch_its_compares_choose(stores: Stores):
    client = await (await stores(1)).client()
    await client.put(b'/a', b'1')
    reply = await client.txn(
        [(b'/a', None, Target.VALUE, Relation.EQUAL, b'1')],
        [(Do.PUT, b'/b', b'2'), (Do.RANGE, b'/', b'0')],
        [(Do.RANGE, b'/a')],
    )
    assert reply.succeeded
    assert [kv.key for kv in reply.results[1].kvs] == [b'/a', b'/b']


async def test_bad_requests_are_errors_and_leave_the_connection_alone(stores: Stores):
    client = await (await stores(1)).client()
    with pytest.raises(BadRequest, match='key is not provided'):
        await client.put(b'', b'')
    with pytest.raises(TooLarge, match='value of'):
        await client.put(b'/big', bytes(VALUE_BYTES_MAX + 1))
    with pytest.raises(TooLarge, match='request of'):
        await client.txn([], [[int(Do.PUT), b'/%d' % n, bytes(VALUE_BYTES_MAX)] for n in range(40)])
    with pytest.raises(FutureRevision):
        await client.get(b'/a', revision=10_000)
    with pytest.raises(LeaseNotFound):
        await client.put(b'/a', b'', lease=12345)
    with pytest.raises(BadRequest):
        await client._call(Op.RANGE, 'text')
    with pytest.raises(BadRequest, match='unknown operation'):
        await client._call(99)
    with pytest.raises(BadRequest):
        await client._write(77)
    with pytest.raises(BadRequest):
        await client._write(Command.PUT, 1, 2, 3, 4, 5, 6)
    await client.put(b'/big', bytes(VALUE_BYTES_MAX))
    assert (await client.get(b'/big')).kv.value == bytes(VALUE_BYTES_MAX)


async def test_a_long_range_comes_in_pieces_at_one_revision(stores: Stores):
    client = await (await stores(1)).client()
    for n in range(12):
        await client.put(b'/k%02d' % n, bytes(1_000_000))
    reply = await client.range(b'/k', b'/l')
    assert (len(reply.kvs), reply.count, reply.more) == (12, 12, False)
    reply = await client.range(b'/k', b'/l', limit=7)
    assert (len(reply.kvs), reply.count, reply.more) == (7, 12, True)
    assert (await client.range(b'/k', b'/l', count_only=True)).count == 12
    assert all(kv.value == b'' for kv in (await client.range(b'/', NO_END, keys_only=True)).kvs)


@pytest.mark.parametrize(
    'garbage', [b'GET / HTTP/1.1\r\n\r\n', b'\x00\x00\x00\x05hello', b'\x00\x00\x00\x01\xc1', b'\xff' * 64]
)
async def test_garbage_closes_its_own_connection_only(stores: Stores, garbage: bytes):
    store = await stores(1)
    client = await store.client()
    await client.put(b'/a', b'1')
    reader, writer = await asyncio.open_connection(*store.endpoints[0])
    writer.write(garbage)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b''
    writer.close()
    assert (await client.get(b'/a')).kv.value == b'1'


async def test_a_watch_has_history_present_and_previous_values(stores: Stores):
    client = await (await stores(3)).client()
    first = (await client.put(b'/w/a', b'1')).revision
    await client.put(b'/elsewhere', b'')
    await client.put(b'/w/a', b'2')
    async with client.watch(b'/w/', b'/w0', revision=first) as stream:
        await client.delete(b'/w/a')
        events = await take(stream, 3)
    assert [e.type for e in events] == ['put', 'put', 'delete']
    assert [e.prev.value if e.prev else None for e in events] == [None, b'1', b'2']
    assert events[2].kv.mod_revision == first + 3


async def test_a_watch_from_now_sees_only_what_comes(stores: Stores):
    client = await (await stores(1)).client()
    await client.put(b'/a', b'old')
    async with client.watch(b'/', b'0', prev_kv=False, deletes=False) as stream:
        await client.delete(b'/a')
        await client.put(b'/a', b'new')
        (event,) = await take(stream, 1)
    assert (event.type, event.kv.value, event.prev) == ('put', b'new', None)


async def test_a_watch_that_is_followed_by_callbacks_gets_what_iteration_would(stores: Stores):
    client = await (await stores(1)).client()
    seen: list[bytes] = []
    errors: list[StoreError] = []
    complete = asyncio.Event()

    def on_batch(batch: WatchBatch) -> None:
        seen.extend(event.kv.value for event in batch.events)
        if seen[-1:] == [b'last']:
            complete.set()

    first = (await client.put(b'/k', b'old')).revision
    async with client.watch(b'/', b'0', revision=first) as stream:
        await client.put(b'/k', b'queued')
        assert (await take(stream, 1))[0].kv.value == b'old'
        stream.follow(on_batch, errors.append)
        await client.put(b'/k', b'last')
        await asyncio.wait_for(complete.wait(), 10)
    assert seen == [b'queued', b'last']
    assert [type(e) for e in errors] == [Stopped]


async def test_a_watch_of_deletions_and_one_from_a_revision_to_come_see_nothing_else(stores: Stores):
    client = await (await stores(1)).client()
    start = await client.revision()
    async with (
        client.watch(b'/', b'0', puts=False) as deletions,
        client.watch(b'/', b'0', revision=start + 3) as later,
    ):
        await client.put(b'/a', b'1')
        await client.put(b'/b', b'2')
        await client.delete(b'/a')
        assert [(e.type, e.kv.key) for e in await take(deletions, 1)] == [('delete', b'/a')]
        assert [(e.type, e.kv.mod_revision) for e in await take(later, 1)] == [('delete', start + 3)]


async def test_a_transaction_is_one_batch_of_a_watch_even_when_it_is_large(stores: Stores):
    client = await (await stores(1)).client()
    async with client.watch(b'/', b'0') as live:
        for n in range(8):
            await client.put(b'/t%d' % n, bytes(700_000))
        await client.delete_range(b'/t', b'/u')
        batch = await anext(live)
        while batch.events[-1].type != 'delete':
            batch = await anext(live)
        assert sum(e.type == 'delete' for e in batch.events) == 8
        revision = batch.revision
    async with client.watch(b'/', b'0', revision=revision) as late:
        assert len((await anext(late)).events) == 8


async def test_watching_a_compacted_revision_is_an_error_that_says_where_to_go_on(stores: Stores):
    client = await (await stores(1)).client()
    for n in range(5):
        await client.put(b'/a', b'%d' % n)
    await client.compact(5)
    with pytest.raises(Compacted) as caught:
        async with client.watch(b'/', b'0', revision=2) as stream:
            await anext(stream)
    assert caught.value.compact_revision == 5
    with pytest.raises(Compacted):
        await client.get(b'/a', revision=4)
    async with client.watch(b'/', b'0', revision=5) as stream:
        assert [e.kv.value for e in await take(stream, 2)] == [b'3', b'4']


async def test_progress_is_told_when_asked_for(stores: Stores):
    client = await (await stores(1)).client()
    async with client.watch(b'/x', None, progress=True) as stream:
        revision = (await client.put(b'/other', b'')).revision
        async with asyncio.timeout(10):
            while (batch := await anext(stream)).revision < revision:
                pass
        assert batch.events == ()


async def test_a_reader_that_sleeps_gets_everything_from_history_later(stores: Stores, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('kstore.watchstream.STREAM_EVENTS_MAX', 20)
    store = await stores(1)
    client = await store.client()
    async with client.watch(b'/', b'0') as stream:
        await asyncio.gather(*(client.put(b'/k%03d' % n, b'x') for n in range(200)))
        await client.put(b'/k999', b'')
        events = await take(stream, 201)
    assert [e.kv.mod_revision for e in events] == list(range(2, 203))


async def test_a_connection_that_does_not_read_is_fed_from_history_once_it_does(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr('kstore.connection.WRITE_BUFFER_BYTES', 64 * 1024)
    store = await stores(1)
    slow, fast = await store.client(), await store.client()
    async with slow.watch(b'/', b'0', prev_kv=False) as stream:
        assert slow._link is not None
        assert slow._link._transport is not None
        slow._link._transport.pause_reading()
        for n in range(30):
            await fast.put(b'/k%03d' % n, bytes(1_000_000))
        slow._link._transport.resume_reading()
        events = await take(stream, 30)
    assert [e.kv.mod_revision for e in events] == list(range(2, 32))


async def test_a_lease_takes_its_keys_along(stores: Stores):
    client = await (await stores(3)).client()
    kept, ended = await client.lease_grant(1), await client.lease_grant(1)
    await client.put(b'/kept', b'', lease=kept)
    async with client.watch(b'/l', b'/m') as stream:
        await client.put(b'/l2', b'', lease=ended)
        await client.put(b'/l1', b'', lease=ended)
        assert sorted(await client.leases()) == sorted([kept, ended])
        assert (await client.lease_ttl(ended)).keys == [b'/l1', b'/l2']
        events: list[Event] = []
        async with asyncio.timeout(10):
            while len(events) < 4:
                assert await client.lease_keepalive(kept) == 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        events += (await anext(stream)).events
    assert [(e.type, e.kv.key) for e in events[2:]] == [('delete', b'/l1'), ('delete', b'/l2')]
    assert events[2].kv.mod_revision == events[3].kv.mod_revision
    assert (await client.get(b'/kept')).kv is not None
    assert await client.lease_keepalive(ended) == 0
    assert (await client.lease_ttl(ended)).ttl_s == -1
    await client.lease_revoke(kept)
    assert (await client.get(b'/kept')).kv is None
    with pytest.raises(LeaseNotFound):
        await client.lease_revoke(kept)


async def test_every_member_serves_every_request(stores: Stores):
    store = await stores(3)
    for n, endpoint in enumerate(store.endpoints):
        client = await store.client(endpoints=[endpoint])
        lease = await client.lease_grant(50)
        key = b'/%d' % n
        revision = (await client.put(key, b'x', lease=lease)).revision
        assert (await client.get(key)).kv.mod_revision == revision
        assert await client.lease_keepalive(lease) == 50
        assert (await client.lease_ttl(lease)).keys == [key]
        async with client.watch(key, None, revision=revision) as stream:
            assert (await take(stream, 1))[0].kv.key == key


async def test_the_death_of_the_leader_costs_nobody_a_write_or_an_event(stores: Stores):
    store = await stores(3)
    client = await store.client(deadline_s=20.0)
    watcher = await store.client(deadline_s=20.0)
    revisions = []
    async with watcher.watch(b'/', b'0') as stream:
        for n in range(60):
            if n == 20:
                leader = (await client.status())['leader']
                await store.kill(leader)
            if n == 40:
                await store.start(leader)
            revisions.append((await client.put(b'/k%d' % n, b'')).revision)
        events = await take(stream, 60)
    assert [e.kv.mod_revision for e in events] == revisions
    assert [e.kv.version for e in events] == [1] * 60


async def test_everything_is_there_after_all_members_stopped(stores: Stores):
    store = await stores(3)
    client = await store.client(deadline_s=20.0)
    lease = await client.lease_grant(1000)
    for n in range(30):
        await client.put(b'/k%d' % n, b'%d' % n, lease=lease)
    revision = await client.revision()
    for i in (1, 2, 3):
        await store.kill(i)
    await store.start()
    reply = await client.range(b'/', b'0')
    assert (reply.count, reply.revision) == (30, revision)
    assert len((await client.lease_ttl(lease)).keys) == 30


async def test_without_a_majority_writes_and_reads_fail_and_stale_reads_work(stores: Stores):
    store = await stores(3, request_timeout_s=0.5)
    setup = await store.client()
    await setup.put(b'/a', b'1')
    leader = await store.leader()
    for i in (1, 2, 3):
        if i != leader:
            await store.kill(i)
    client = await store.client(endpoints=[store.endpoints[leader - 1]], deadline_s=2.0)
    with pytest.raises((NoLeader, Timeout)):
        await client.put(b'/a', b'2')
    assert (await client.get(b'/a', serializable=True)).kv.value == b'1'


async def test_a_reply_that_is_lost_does_not_make_the_write_happen_twice(stores: Stores):
    store = await stores(1)
    client = await store.client(deadline_s=10.0)
    await client.put(b'/n', b'0')
    original = client._on_message
    dropped = []

    def lossy(message: list[Any]) -> None:
        if message[0] and not dropped:
            dropped.append(message)
            assert client._link is not None
            client._link.close()
        else:
            original(message)

    assert client._link is not None
    client._link._on_message = lossy
    reply = await client.put(b'/n', b'1')
    assert dropped
    kv = (await client.get(b'/n')).kv
    assert (kv.version, kv.mod_revision) == (2, reply.revision)


async def test_a_closed_client_and_a_missing_store_say_so(stores: Stores, env: Env):
    client = await (await stores(1)).client()
    await client.close()
    with pytest.raises(Stopped):
        await client.get(b'/a')
    async with StoreClient([('127.0.0.1', 1)], env, deadline_s=0.2) as nobody:
        with pytest.raises(Unreachable, match=r'127\.0\.0\.1:1'):
            await nobody.get(b'/a')


async def test_health_and_metrics_are_served(stores: Stores):
    async with aiohttp.ClientSession() as http:
        port = free_port()
        store = await stores(1, http=f'127.0.0.1:{port}', trace_ms=1000)
        client = await store.client()
        await client.put(b'/a', b'1')
        url = f'http://127.0.0.1:{port}'
        async with http.get(f'{url}/health') as reply:
            assert (reply.status, await reply.json()) == (200, {'health': 'true', 'reason': ''})
        async with http.get(f'{url}/ready') as reply:
            assert reply.status == 200
        async with http.get(f'{url}/metrics') as reply:
            text = await reply.text()
        assert 'etcd_debugging_mvcc_current_revision 2.0' in text
        assert 'etcd_debugging_mvcc_slow_watcher_total 0.0' in text
        assert re.search(r'etcd_disk_wal_fsync_duration_seconds_bucket\{le="0.001"\} \d', text)
        syncs = re.search(r'etcd_disk_wal_fsync_duration_seconds_count (\d+)', text)
        assert syncs is not None
        assert int(syncs[1]) > 0
        assert 'etcd_disk_backend_commit_duration_seconds_sum' in text
        assert 'etcd_server_proposals_failed_total 0.0' in text
        assert 'kstore_write_phase_seconds_total{phase="fsync"}' in text
        while 'kstore_prefix_keys{prefix="/"} 1.0' not in text:  # counted in the background after the first scrape
            async with http.get(f'{url}/metrics') as reply:
                text = await reply.text()


@pytest.mark.parametrize('members', [1, 3])
async def test_contenders_for_one_key_take_turns_and_every_win_counts_once(stores: Stores, members: int):
    store = await stores(members)
    clients = [await store.client(endpoints=[store.endpoints[n % members]]) for n in range(8)]
    wins = 0

    async def contend(client: StoreClient) -> None:
        nonlocal wins
        kv = (await client.get(b'/n')).kv
        for _ in range(20):
            reply = await client.cas(b'/n', kv.mod_revision if kv else 0, b'x')
            wins += reply.succeeded
            assert reply.succeeded or (reply.kv and reply.kv != kv)
            kv = (await client.get(b'/n')).kv if reply.succeeded else reply.kv

    await asyncio.gather(*(contend(c) for c in clients))
    assert (await clients[0].get(b'/n')).kv.version == wins
    assert wins >= 8
