"""Rates from readings; figures of real processes against psutil; the names that scrapers look for."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from kcore.metrics import CollectorRegistry, render
from knode.config import NodeConfig
from knode.probes.metrics import ProbeMetrics
from knode.runtime.driver import ContainerSpec, Sandbox
from knode.runtime.simulated import PREFIX, SimulatedDriver
from knode.stats import network
from knode.stats.collector import Collector
from knode.stats.disks import Disks
from knode.stats.exposition import AgentMetrics, CadvisorMetrics, Counts, ResourceMetrics, SpaceMetrics
from knode.stats.model import NS, ContainerUse, Meter, PodUse, Reading, Snapshot, Use
from knode.stats.summary import summary, with_disks

AT = datetime(2026, 1, 2, tzinfo=UTC)
BURN = 'while True: pass'
DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    while True:
        pass
os.wait()
time.sleep(1000)
"""


def reading(at_s: float, cpu_s: float) -> Reading:
    return Reading(AT, at_s, int(cpu_s * NS), 1 << 20, 1)


def test_a_rate_needs_two_readings_or_a_known_beginning() -> None:
    assert Meter().add(reading(100, 7)).nano_cores is None
    young = Meter(begun_s=90).add(reading(100, 5))
    assert (young.nano_cores, young.window_s) == (NS // 2, 10)


def test_the_rate_is_that_between_the_last_two_readings() -> None:
    meter = Meter()
    uses = [meter.add(reading(at, cpu)) for at, cpu in ((0, 0), (10, 10), (20, 12.5))]
    assert [u.nano_cores for u in uses] == [None, NS, NS // 4]


def test_readings_in_quick_succession_keep_the_earlier_rate() -> None:
    meter = Meter()
    uses = [meter.add(reading(at, cpu)) for at, cpu in ((0, 0), (10, 10), (10.1, 10.1), (20, 20))]
    assert [u.nano_cores for u in uses[1:]] == [NS, NS, NS]


def test_time_of_a_process_that_ended_unseen_stays_in_the_total() -> None:
    meter = Meter()
    uses = [meter.add(reading(at, cpu)) for at, cpu in ((0, 4), (10, 9), (20, 3), (30, 5))]
    assert [u.cpu_ns // NS for u in uses] == [4, 9, 9, 11]
    assert uses[2].nano_cores == 0


def _truth(pids: list[int]) -> tuple[float, int]:
    """(CPU seconds, bytes) by psutil."""
    processes = [psutil.Process(p) for p in pids]
    times = [p.cpu_times() for p in processes]
    return sum(t.user + t.system for t in times), sum(p.memory_info().rss for p in processes)


async def test_a_container_uses_what_psutil_says_of_its_processes(rig: Any, eventually: Any) -> None:
    handle = await rig.open()
    record = await rig.start(handle, sys.executable, '-c', f'import os; os.fork()\n{BURN}')
    root = psutil.Process(record.pid)
    await eventually(lambda: len(root.children()) == 1)
    family = [record.pid, root.children()[0].pid]
    await eventually(lambda: _truth(family)[0] > 0.6)
    before = _truth(family)
    found = rig.driver.stats(handle)[record.id]
    after = _truth(family)
    assert found.processes == 2
    assert before[0] * 0.95 <= found.cpu_ns / NS <= after[0] * 1.05
    assert found.rss_bytes == pytest.approx(after[1], rel=0.05)


async def test_a_process_that_left_its_parent_still_counts_for_its_container(rig: Any, eventually: Any) -> None:
    handle = await rig.open()
    away = await rig.start(handle, sys.executable, '-c', DAEMON, name='a')
    idle = await rig.start(handle, 'sleep', '1000', name='b')
    await eventually(lambda: rig.driver.stats(handle)[away.id].cpu_ns > 0.2 * NS)
    found = rig.driver.stats(handle)
    assert (found[away.id].processes, found[idle.id].processes) == (2, 1)
    assert found[idle.id].cpu_ns < 0.1 * NS


def worker(rig: Any, handle: Any) -> SimpleNamespace:
    meta = {'name': 'p', 'namespace': 'default'}
    checkpoint = SimpleNamespace(handle=handle, start_time='2026-01-02T00:00:00Z')
    return SimpleNamespace(pod={'metadata': meta}, uid=handle.uid, checkpoint=checkpoint, driver=rig.driver)


def config(**given: Any) -> NodeConfig:
    return NodeConfig(name='n', kubeconfig='/dev/null', data_dir='/', **given)


async def test_the_collector_gives_each_container_a_rate_and_keeps_time_of_those_that_ended(
    rig: Any, eventually: Any
) -> None:
    handle = await rig.open()
    collector = Collector(config(), rig.env, lambda: [worker(rig, handle)])
    await collector.sample()
    record = await rig.start(handle, sys.executable, '-c', BURN)
    await eventually(lambda: rig.env.clock.wall().timestamp() - record.started_ns / NS > 1.2)
    busy = (await collector.sample()).pods[0]
    assert busy.containers[0].name == 'c'
    assert 0 < (busy.containers[0].use.nano_cores or 0) <= 1.1 * NS
    await rig.driver.stop(handle, record.id, grace_s=0)
    await eventually(lambda: not rig.record(handle, record.id).running)
    ended = (await collector.sample()).pods[0]
    assert not ended.containers
    assert ended.use.cpu_ns == busy.use.cpu_ns


async def test_a_node_with_a_capacity_of_its_own_uses_what_its_pods_and_its_agent_use(rig: Any) -> None:
    handle = await rig.open()
    await rig.start(handle, 'sleep', '1000')
    collector = Collector(config(cpu='4', memory='8Gi'), rig.env, lambda: [worker(rig, handle)])
    found = await collector.sample()
    assert found.node.memory_bytes == found.agent.memory_bytes + found.pods[0].use.memory_bytes
    document = summary(found, 'n', collector.capacity_bytes)
    assert document['node']['memory']['availableBytes'] == (8 << 30) - found.node.memory_bytes


def snapshot() -> Snapshot:
    use = Use(AT, 5 * NS, 4096, 2, NS // 2, 10.0)
    container = ContainerUse('i1', 'c', 'busybox', int(AT.timestamp()) * NS, use)
    return Snapshot(use, use, [PodUse('ns', 'p', 'u1', '2026-01-02T00:00:00Z', [container], use)])


def test_the_summary_has_rates_and_their_window() -> None:
    document = summary(snapshot(), 'n', 8192)
    found = document['pods'][0]['containers'][0]
    assert found['cpu'] == {
        'time': '2026-01-02T00:00:00Z', 'usageCoreNanoSeconds': 5 * NS, 'usageNanoCores': NS // 2,
        'windowSeconds': 10.0,
    }  # fmt: skip
    assert found['memory']['workingSetBytes'] == 4096
    assert document['node']['memory']['availableBytes'] == 4096


async def test_the_summary_tells_what_pods_have_written_where(rig: Any, tmp_path: Path) -> None:
    handle = await rig.open()
    root = Path(handle.directory)
    sizes = {'containers/c': 50_000, 'logs/c': 20_000, 'volumes/scratch': 90_000, 'volumes/config': 10}
    for place, size in sizes.items():
        (root / place).mkdir(parents=True)
        (root / place / 'file').write_bytes(b'x' * size)
    (root / 'volumes' / 'host').symlink_to('/usr')
    seen = worker(rig, handle)
    (root / 'volumes' / 'claimed').symlink_to(tmp_path)
    (root / 'volumes' / 'lost').symlink_to('/no/such')
    seen.paths, seen.volumes = SimpleNamespace(root=root), SimpleNamespace(memory=lambda pod: {})
    kinds = {'scratch': 'emptyDir', 'config': 'configMap', 'host': 'hostPath', 'lost': 'ephemeral'}
    volumes = [{'name': n, kind: {}} for n, kind in kinds.items()]
    volumes.append({'name': 'claimed', 'persistentVolumeClaim': {'claimName': 'mine'}})
    seen.pod['spec'] = {'containers': [{'name': 'c'}], 'volumes': volumes}
    disks = Disks(rig.env, tmp_path, lambda: [seen])
    found = await disks.look()
    use = snapshot()
    use = Snapshot(use.node, use.agent, [dataclasses.replace(use.pods[0], uid=handle.uid)])
    document = with_disks(summary(use, 'n', 8192), found)
    pod = document['pods'][0]
    assert pod['containers'][0]['rootfs']['usedBytes'] >= 50_000
    assert 20_000 <= pod['containers'][0]['logs']['usedBytes'] < 50_000
    assert [v['name'] for v in pod['volume']] == ['claimed', 'config', 'scratch']
    claimed, *own = pod['volume']
    assert all(v['usedBytes'] >= sizes[f'volumes/{v["name"]}'] for v in own)
    assert claimed['pvcRef'] == {'name': 'mine', 'namespace': pod['podRef']['namespace']}
    assert 160_010 <= pod['ephemeral-storage']['usedBytes'] < 300_000
    assert document['node']['fs']['capacityBytes'] == pod['ephemeral-storage']['capacityBytes'] > 0
    assert document['node']['rlimit']['maxpid'] >= document['node']['rlimit']['curproc'] > 0
    (root / 'logs' / 'c' / 'file').unlink()
    assert await disks.look() is found, 'whoever asks soon again gets the same'
    text = exposed(CadvisorMetrics(lambda: use, 2, 8192, disks=lambda: found))
    lines = [x for x in text.splitlines() if x.startswith('container_fs_usage_bytes{') and 'container="c"' in x]
    assert len(lines) == 1, text
    figures = exposed_figures(SpaceMetrics(lambda: use, lambda: found))
    claim = '{namespace="ns",persistentvolumeclaim="mine"}'
    assert {name.partition('{')[0]: value for name, value in figures.items() if claim in name} == {
        f'kubelet_volume_stats_{name}': claimed[field]
        for name, field in (
            ('capacity_bytes', 'capacityBytes'), ('available_bytes', 'availableBytes'), ('used_bytes', 'usedBytes'),
            ('inodes', 'inodes'), ('inodes_free', 'inodesFree'), ('inodes_used', 'inodesUsed'),
        )
    }  # fmt: skip
    where = f'container="c",namespace="ns",pod="p",uid="{handle.uid}"'
    assert figures[f'kubelet_container_log_filesystem_used_bytes{{{where}}}'] >= 20_000


DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0
 wlan0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0
  eth0: 10 20 30 40 0 0 0 0 50 60 70 80 0 0 0 0
"""
ROUTES = 'Iface\tDestination\tGateway\neth0\t000200C0\t00000000\neth0\t00000000\t010200C0\n'


def test_network_counters_are_those_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {'/proc/net/dev': DEV, '/proc/net/route': ROUTES}
    monkeypatch.setattr('knode.stats.network.host.read_file', lambda path: files[path].encode())
    assert network.interfaces() == [
        network.Interface('eth0', 10, 20, 30, 40, 50, 60, 70, 80), network.Interface('wlan0', 1, 2, 3, 4, 5, 6, 7, 8),
    ]  # fmt: skip
    text = exposed(CadvisorMetrics(snapshot, 2, 8192))
    where = 'container="",id="/",image="",interface="eth0",name="",namespace="",pod=""'
    for name, value in (
        ('receive_bytes', 10), ('receive_packets', 20), ('receive_errors', 30), ('receive_packets_dropped', 40),
        ('transmit_bytes', 50), ('transmit_packets', 60), ('transmit_errors', 70), ('transmit_packets_dropped', 80),
    ):  # fmt: skip
        assert f'container_network_{name}_total{{{where}}} {value}.0' in text, text


def exposed(collector: Any) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return render(registry).decode()


def exposed_figures(collector: Any) -> dict[str, float]:
    lines = (line.rsplit(' ', 1) for line in exposed(collector).splitlines() if not line.startswith('#'))
    return {name: float(value) for name, value in lines}


def test_pods_are_counted_by_where_they_are_in_their_life() -> None:
    working = {('sync', 'desired', ''): 4, ('terminating', 'orphan', ''): 2, ('terminated', 'desired', ''): 1,
               ('sync', 'desired', 'true'): 3}  # fmt: skip
    found = exposed_figures(AgentMetrics('n', lambda: Counts(9, 8, 7, 6, working)))
    assert found['kubelet_working_pods{config="orphan",lifecycle="terminating",static=""}'] == 2
    assert found['kubelet_working_pods{config="orphan",lifecycle="sync",static="true"}'] == 0
    names = ('kubelet_desired_pods{static=""}', 'kubelet_desired_pods{static="true"}', 'kubelet_mirror_pods',
             'kubelet_active_pods{static=""}', 'kubelet_managed_ephemeral_containers')  # fmt: skip
    assert [found[name] for name in names] == [5, 3, 3, 4, 6]


def test_resource_metrics_have_upstreams_names_and_moments() -> None:
    text = exposed(ResourceMetrics(snapshot))
    moment = int(AT.timestamp()) * 1000
    for line in (
        f'node_cpu_usage_seconds_total 5.0 {moment}',
        f'container_cpu_usage_seconds_total{{container="c",namespace="ns",pod="p"}} 5.0 {moment}',
        f'container_memory_working_set_bytes{{container="c",namespace="ns",pod="p"}} 4096.0 {moment}',
        f'pod_cpu_usage_seconds_total{{namespace="ns",pod="p"}} 5.0 {moment}',
        'resource_scrape_error 0.0',
    ):
        assert line in text.splitlines(), text


def test_cadvisor_metrics_name_pods_and_containers_by_their_path() -> None:
    text = exposed(CadvisorMetrics(snapshot, 2, 8192))
    ids = [f'id="{i}"' for i in ('/', '/kubepods/podu1', '/kubepods/podu1/i1')]
    assert all(any(i in x for x in text.splitlines() if x.startswith('container_cpu_usage_seconds_total')) for i in ids)
    assert 'machine_cpu_cores 2.0' in text


def test_probe_outcomes_are_counted_and_forgotten_with_their_container() -> None:
    metrics = ProbeMetrics()
    for passed in itertools.chain([True] * 2, [False]):
        metrics.observe('Readiness', ('c', 'p', 'ns', 'u1'), 0.1, passed=passed)
    text = render(metrics.registry).decode()
    where = 'container="c",namespace="ns",pod="p",pod_uid="u1",probe_type="Readiness"'
    assert f'prober_probe_total{{{where},result="successful"}} 2.0' in text
    metrics.forget(('c', 'p', 'ns', 'u1'))
    assert 'namespace="ns"' not in render(metrics.registry).decode()


async def test_a_simulated_container_uses_what_its_annotations_say(env: Any, tmp_path: Path) -> None:
    driver = SimulatedDriver(env)
    notes = {f'{PREFIX}cpu': '250m', f'{PREFIX}memory.c': '64Mi'}
    handle = await driver.open(Sandbox('u', 'default', 'p', str(tmp_path), notes), lambda: None)
    made = ContainerSpec('i', 'c', 0, argv=[], env={}, cwd='/', log='')
    record = await driver.start(handle, made)
    used = driver.stats(handle)['i']
    ran_ns = env.clock.wall().timestamp() * NS - record.started_ns
    assert 0 <= used.cpu_ns <= ran_ns / 4 + 1
    assert used.rss_bytes == 64 << 20
