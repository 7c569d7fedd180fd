"""Control groups: what is written for a limit, what is read, and the real thing where this machine lets us."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest

from knode.runtime import cgroups
from knode.runtime.cgroups import Cgroups, Hierarchies, files, mounted
from knode.runtime.driver import Limits
from knode.runtime.process import ProcessDriver

HALF = Limits(cpu_milli=500, cpu_request_milli=250, memory_bytes=1 << 26, pod_pids=20)


def test_limits_in_version_1():
    assert files(HALF, unified=False) == {
        'cpu': {'cpu.shares': '256', 'cpu.cfs_period_us': '100000', 'cpu.cfs_quota_us': '50000'},
        'memory': {'memory.limit_in_bytes': '67108864'},
        'pids': {'pids.max': 'max'},
    }
    assert files(Limits(), unified=False)['cpu']['cpu.cfs_quota_us'] == '-1'
    assert files(Limits(), unified=False)['cpu']['cpu.shares'] == '2'


def test_limits_in_version_2():
    assert files(HALF, unified=True) == {
        'cpu': {'cpu.weight': '10', 'cpu.max': '50000 100000'},
        'memory': {'memory.max': '67108864', 'memory.oom.group': '1'},
        'pids': {'pids.max': 'max'},
    }
    assert files(Limits(), unified=True)['cpu']['cpu.max'] == 'max 100000'


V1 = '32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n33 31 0:30 / /m rw - cgroup cgroup rw,memory\n'
V2 = '41 31 0:38 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw\n'


def test_hierarchies_are_found_where_they_are_mounted():
    one, two = mounted(V1 + V2, '/kubeling'), mounted(V2, 'kubeling/a')
    assert not one.unified
    assert one.roots['cpuacct'] == Path('/sys/fs/cgroup/cpu/kubeling')
    assert one.roots['memory'] == Path('/m/kubeling')
    assert two.unified
    assert two.roots == dict.fromkeys(('cpu', 'memory', 'pids'), Path('/sys/fs/cgroup/kubeling/a'))


@pytest.fixture
def unified(env, tmp_path, monkeypatch) -> Cgroups:
    """Version 2 on an ordinary file system: files are made when written."""
    monkeypatch.setattr(cgroups, '_write', lambda path, text: path.write_text(text))
    return Cgroups(env, Hierarchies(True, dict.fromkeys(('cpu', 'memory', 'pids'), tmp_path / 'k')))


def test_a_container_gets_a_group_below_its_pods(unified, tmp_path):
    assert unified.limits_memory
    assert unified.make('u1', 'c1', HALF) == [f'{tmp_path}/k/podu1/c1/cgroup.procs']
    assert (tmp_path / 'k/podu1/pids.max').read_text() == '20'
    assert (tmp_path / 'k/podu1/c1/cpu.max').read_text() == '50000 100000'
    assert (tmp_path / 'k/podu1/cgroup.subtree_control').read_text() == '+cpu +memory +pids'
    unified.make('u1', 'c1', dataclasses.replace(HALF, cpu_milli=250))
    assert (tmp_path / 'k/podu1/c1/cpu.max').read_text() == '25000 100000', 'the same group, resized'


def test_counters_and_kills_are_read(unified, tmp_path):
    unified.make('u1', 'c1', HALF)
    group = tmp_path / 'k/podu1/c1'
    for name, text in {
        'cpu.stat': 'usage_usec 7\nuser_usec 5\n', 'memory.current': '5000\n', 'pids.current': '3\n',
        'memory.stat': 'anon 3000\ninactive_file 1000\n', 'memory.events': 'low 0\noom 1\noom_kill 0\n',
    }.items():  # fmt: skip
        (group / name).write_text(text)
    found = unified.stats('u1', 'c1')
    assert (found.cpu_ns, found.rss_bytes, found.processes) == (7000, 4000, 3)
    assert not unified.oom_killed('u1', 'c1')
    (group / 'memory.events').write_text('oom 1\noom_kill 2\n')
    assert unified.oom_killed('u1', 'c1')
    assert unified.stats('u1', 'other') is None


def test_what_cannot_be_written_is_done_without(env, tmp_path):
    (tmp_path / 'file').write_text('')
    groups = Cgroups(env, Hierarchies(False, {'pids': tmp_path / 'file' / 'k'}))
    assert groups.make('u1', 'c1', HALF) == []
    assert not groups.limits_memory


FORKS = """
import os, time
for _ in range(10):
    try:
        if os.fork() == 0:
            break
    except BlockingIOError:
        break
time.sleep(1000)
"""
PIDS = Path('/sys/fs/cgroup/pids')


@pytest.mark.skipif(not os.access(PIDS, os.W_OK) or os.geteuid() != 0, reason='no writable pids hierarchy (version 1)')
async def test_a_pods_processes_are_counted_by_the_kernel(rig, env, eventually):
    """Only the pids hierarchy: a memory group here could take the test out of the limits it runs under itself."""
    root = PIDS / f'kubeling-test-{os.getpid()}'
    groups = Cgroups(env, Hierarchies(False, {'pids': root}))
    await rig.driver.close()
    rig.driver = ProcessDriver(env, groups)
    try:
        handle = await rig.open()
        r = await rig.start(handle, sys.executable, '-c', FORKS, limits=Limits(pod_pids=5))
        group = root / 'podu1' / r.id
        await eventually(lambda: int((group.parent / 'pids.current').read_text()) == 5)
        assert str(r.pid) in (group / 'cgroup.procs').read_text().split()

        await rig.driver.remove(handle)
        rig.driver.forget(handle)
        assert not group.parent.exists()
    finally:
        for pod in list(rig.driver._pods.values()):
            await rig.driver.remove(pod.handle)
        await rig.driver.close()
        groups.sweep()
        root.rmdir()
