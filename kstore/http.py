"""`--http`: `/health`, `/ready` and `/metrics` of one member, for probes and scrapers. Nothing else, and no secrets.

`/health` asks the cluster: 200 when a linearizable read succeeds here in time, else 503 with a reason. `/ready` asks
the member: 200 when it knows a leader. Metric names are etcd's where the meaning is the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from kcore.buckets import Buckets
from kcore.config import split_address
from kcore.metrics import CONTENT_TYPE, CollectorRegistry, render
from kstore import __version__
from kstore.errors import StoreError

if TYPE_CHECKING:
    from kstore.member import Member

HEALTH_TIMEOUT_S = 2.0
"""A linearizable read that takes longer makes a member unhealthy."""


class MemberCollector:
    """Reads the figures at scrape time: serving a request costs nothing extra."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def collect(self) -> Iterable[Metric]:
        status = self._member.status()
        backend = self._member.fsm.engine.backend
        gauges = {
            'etcd_server_has_leader': ('1 while a leader is known', int(status['leader'] != 0)),
            'etcd_server_is_leader': ('1 on the leader', int(status['role'] == 'leader')),
            'etcd_server_proposals_committed_total': ('Log index known to be committed', status['commit_index']),
            'etcd_server_proposals_applied_total': ('Log index applied', status['applied_index']),
            'etcd_server_proposals_pending': ('Requests under way', self._member.proposals.inflight),
            'etcd_mvcc_db_total_size_in_bytes': ('Bytes of the state on disk', backend.size_bytes),
            'etcd_mvcc_db_total_size_in_use_in_bytes': ('Bytes of it in use', backend.used_bytes),
            'etcd_debugging_mvcc_current_revision': ('Revision of the store', status['revision']),
            'etcd_debugging_mvcc_compact_revision': ('Oldest readable revision', status['compacted']),
            'etcd_debugging_mvcc_watcher_total': ('Watches', status['watches']),
            'etcd_debugging_mvcc_watch_stream_total': (
                'Connections with watches',
                sum(len(c.watches) > 0 for c in self._member.connections),
            ),
            'etcd_debugging_mvcc_slow_watcher_total': (
                'Watches that still read history',
                sum(c.watches.slow for c in self._member.connections),
            ),
            'etcd_server_quota_backend_bytes': ('Quota of the state, 0 for none', status['quota_bytes']),
            'etcd_server_is_learner': ('1 on a learner', int(status['member'] in status['learners'])),
            'etcd_server_id': ('Member id', status['member']),
            'kstore_alarms': ('Alarms raised here: see `python -m kstore alarm`', len(status['alarms'])),
            'kstore_durable_index': ('Log index that the state on disk holds', status['durable_index']),
            'kstore_connections': ('Open connections', status['connections']),
            'kstore_leases': ('Live leases', status['leases']),
            'kstore_sessions': ('Clients remembered for exactly-once', status['sessions']),
            'kstore_term': ('Raft term', status['term']),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value)
        version = GaugeMetricFamily('etcd_server_version', 'What runs here', labels=['server_version'])
        version.add_metric([__version__], 1)
        yield version
        yield from self._counters()
        yield _histogram(
            'etcd_disk_wal_fsync_duration_seconds', 'Writing and syncing a batch of the log', self._member.node.syncs
        )
        yield _histogram(
            'etcd_disk_backend_commit_duration_seconds', 'Bringing the state to the disk', self._member.commits
        )
        yield from self._peers(status)
        yield from self._by_prefix()
        yield from self._phases()

    def _counters(self) -> Iterable[Metric]:
        member, proposals = self._member, self._member.proposals
        counters = {
            'kstore_hash_checks': ('Comparisons without a difference', member.verifier.checks),
            'etcd_debugging_mvcc_events': ('Events given to watches', member.hub.events),
            'etcd_server_leader_changes_seen': ('Changes of leader seen', member.leader_changes),
            'etcd_server_proposals_failed': (
                'Requests given up for want of a leader or of its answer',
                proposals.failed,
            ),
            'etcd_server_read_indexes_failed': ('Linearizable reads given up', proposals.failed_reads),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(name, text, value)

    def _peers(self, status: dict[str, Any]) -> Iterable[Metric]:
        active = GaugeMetricFamily('etcd_network_active_peers', '1 while linked', labels=['Local', 'Remote'])
        sent = CounterMetricFamily('etcd_network_peer_sent_bytes', 'Bytes sent to each peer', labels=['To'])
        for peer in sorted(self._member.peers.addresses):
            active.add_metric([str(status['member']), str(peer)], self._member.peers.up(peer))
            sent.add_metric([str(peer)], self._member.peers.sent_bytes(peer))
        return active, sent

    def _by_prefix(self) -> Iterable[Metric]:
        keys = GaugeMetricFamily('kstore_prefix_keys', 'Live keys of the biggest prefixes', labels=['prefix'])
        size = GaugeMetricFamily('kstore_prefix_bytes', 'Bytes of their key-values', labels=['prefix'])
        for use in self._member.usage.recent():
            name = use.prefix.decode('utf-8', 'backslashreplace') or '(others)'
            keys.add_metric([name], use.keys)
            size.add_metric([name], use.bytes)
        return keys, size

    def _phases(self) -> Iterable[Metric]:
        tracer = self._member.tracer
        if tracer is None:
            return
        seconds = CounterMetricFamily('kstore_write_phase_seconds', 'Where writes spend their time', labels=['phase'])
        for phase, total in tracer.seconds.items():
            seconds.add_metric([phase], total)
        yield seconds
        yield CounterMetricFamily('kstore_writes_traced', 'Writes that this is the time of', tracer.requests)


def _histogram(name: str, text: str, found: Buckets) -> Metric:
    return HistogramMetricFamily(name, text, buckets=found.form(), sum_value=found.total)


class Probes:
    """The three handlers."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._registry = CollectorRegistry()
        self._registry.register(MemberCollector(member))

    async def health(self, _: web.Request) -> web.Response:
        done: asyncio.Future[StoreError | None] = asyncio.get_running_loop().create_future()

        def ready(error: StoreError | None) -> None:
            if not done.done():
                done.set_result(error)

        self._member.proposals.read(ready)
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                error = await done
        except TimeoutError:
            return _answer(f'a linearizable read took longer than {HEALTH_TIMEOUT_S:g} s')
        return _answer(str(error) if error else '')

    async def ready(self, _: web.Request) -> web.Response:
        if self._member.verifier.corrupt:
            return _answer(self._member.verifier.corrupt)
        if not self._member.node.running:
            return _answer('this member is starting')
        if self._member.config.id in self._member.node.status().conf.learners:
            return _answer('this member is a learner')
        return _answer('' if self._member.node.leader_id else 'no leader is known')

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=render(self._registry), headers={'Content-Type': CONTENT_TYPE})


def _answer(reason: str) -> web.Response:
    if reason:
        return web.json_response({'health': 'false', 'reason': reason}, status=503)
    return web.json_response({'health': 'true', 'reason': ''})


async def serve(member: Member, address: str, opened: Callable[[tuple[str, int]], None] = lambda _: None) -> None:
    """Serve until cancelled. Raises OSError when the address is taken; `opened` gets the address listened on."""
    probes = Probes(member)
    app = web.Application()
    app.add_routes(
        [web.get('/health', probes.health), web.get('/ready', probes.ready), web.get('/metrics', probes.metrics)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        host, port = split_address(address)
        await web.TCPSite(runner, host, port).start()
        opened(runner.addresses[0][:2])
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
