"""The agent's three doors: the guarded one, the open one that only reads, and the one that only tells its health."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from knode.access import Access
from knode.config import NodeConfig
from knode.pods.metrics import KubeletMetrics
from knode.probes.metrics import ProbeMetrics
from knode.runtime.simulated import SimulatedDriver
from knode.server import NodeServer
from knode.stats.collector import Collector
from knode.stats.handlers import StatsHandlers

OPEN = ('/healthz', '/healthz/ping', '/pods', '/stats/summary', '/stats/summary?only_cpu_and_memory=true', '/metrics',
        '/metrics/resource', '/metrics/cadvisor', '/metrics/probes')  # fmt: skip
GUARDED = ('/configz', '/runningpods/', '/containerLogs/default/p/c')


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(('127.0.0.1', 0))
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture
async def doors(env, make_pod, make_record, tmp_path):
    """Base URLs: main, healthz, reading."""
    health, reading = free_ports(2)
    config = NodeConfig(
        name='n', kubeconfig='/dev/null', data_dir=tmp_path, listen='127.0.0.1:0',
        healthz_listen=f'127.0.0.1:{health}', read_only_listen=f'127.0.0.1:{reading}',
    )  # fmt: skip
    (tmp_path / 'c.log').write_text('2026-01-01T00:00:00.0Z stdout F hi\n')
    record = make_record(log=str(tmp_path / 'c.log'), ended=0)
    alive = make_record('d')
    worker = SimpleNamespace(
        key='default/p', uid='u1', pod=make_pod(containers=[{'name': 'c', 'image': 'x'}, {'name': 'd', 'image': 'x'}]),
        records=lambda: {'c': [record], 'd': [alive]}, driver=SimulatedDriver(env), listeners=set(),
        checkpoint=SimpleNamespace(handle=None, start_time=''), ended=False,
        ending=False, removed=False, status={'phase': 'Running'},
    )  # fmt: skip
    manager: Any = SimpleNamespace(
        workers={'u1': worker}, find=lambda namespace, name: worker if (namespace, name) == ('default', 'p') else None
    )
    collector = Collector(config, env, manager.workers.values)
    await collector.sample()
    stats = StatsHandlers(
        config, env, manager, collector, SimpleNamespace(metrics=KubeletMetrics(), probe_metrics=ProbeMetrics())
    )  # fmt: skip
    server = NodeServer(config, env, manager, stats, Access(config, env, SimpleNamespace()))  # type: ignore[arg-type]
    await server.start()
    yield [f'http://127.0.0.1:{port}' for port in (server.port, health, reading)]
    await server.close()


async def test_each_door_opens_to_what_it_is_for(doors):
    async with aiohttp.ClientSession() as session:
        found = []
        for base in doors:
            codes = {}
            for path in (*OPEN, *GUARDED):
                async with session.get(base + path) as answer:
                    codes[path] = answer.status
            found.append({path for path, code in codes.items() if code == 200})
            assert set(codes.values()) <= {200, 404}
    assert found == [{*OPEN, *GUARDED}, {'/healthz', '/healthz/ping'}, set(OPEN)]


async def test_requests_are_counted_by_what_was_asked_for(doors):
    async with aiohttp.ClientSession() as session:
        for path in ('/containerLogs/default/p/c', '/containerLogs/default/p/none', '/no/such', '/metrics/cadvisor'):
            async with session.get(doors[0] + path) as answer:
                await answer.read()
        async with session.get(f'{doors[2]}/metrics') as answer:
            text = await answer.text()
    figures = dict(line.rsplit(' ', 1) for line in text.splitlines() if line.startswith('kubelet_http_'))
    for path, kind, number in (
        ('containerLogs', 'readwrite', 2), ('other', 'readwrite', 1), ('metrics/cadvisor', 'readwrite', 1),
        ('metrics', 'readonly', 1),
    ):  # fmt: skip
        labels = f'{{long_running="false",method="GET",path="{path}",server_type="{kind}"}}'
        assert float(figures[f'kubelet_http_requests_total{labels}']) == number
        assert float(figures[f'kubelet_http_inflight_requests{labels}']) == (path == 'metrics')


async def test_pods_are_shown_as_the_agent_knows_them_and_running_ones_as_the_runtime_does(doors):
    async with aiohttp.ClientSession() as session:
        async with session.get(f'{doors[0]}/pods') as answer:
            pods = await answer.json()
        async with session.get(f'{doors[0]}/runningpods/') as answer:
            running = await answer.json()
    assert (pods['kind'], pods['items'][0]['status']) == ('PodList', {'phase': 'Running'})
    assert running['items'] == [
        {
            'metadata': {'name': 'p', 'namespace': 'default', 'uid': 'u1'},
            'spec': {'containers': [{'name': 'd', 'image': 'busybox', 'resources': {}}]},
            'status': {},
        }
    ]


@pytest.mark.parametrize(
    ('path', 'code', 'text'),
    [
        ('default/p/c', 500, 'checkpointing of default/p/c failed (rpc error: code = Unimplemented desc = method'),
        ('default/p/none', 404, 'container none does not exist'),
        ('default/none/c', 404, 'pod does not exist'),
    ],
)
async def test_a_checkpoint_is_refused_as_by_a_runtime_that_makes_none(doors, path, code, text):
    async with aiohttp.ClientSession() as session, session.post(f'{doors[0]}/checkpoint/{path}') as answer:
        assert answer.status == code
        assert text in await answer.text()


async def test_the_settings_are_told_as_a_kubelets(doors):
    async with aiohttp.ClientSession() as session, session.get(f'{doors[0]}/configz') as answer:
        told = (await answer.json())['kubeletconfig']
    assert (told['kind'], told['maxPods'], told['nodeLeaseDurationSeconds']) == ('KubeletConfiguration', 110, 40)
    assert told['evictionHard']['memory.available'] == '100Mi'
    assert (told['readOnlyPort'], told['podPidsLimit'], told['authorization']) == (
        int(doors[2].rpartition(':')[2]), -1, {'mode': 'Certificate'},
    )  # fmt: skip
