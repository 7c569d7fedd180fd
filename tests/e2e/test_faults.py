"""kill -9 of each part in turn: the rest goes on, and what was killed comes back and fits in."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import ROOT, LocalCluster

pytestmark = pytest.mark.e2e


@pytest.fixture
def hello(new_cluster: Callable[[], LocalCluster]) -> LocalCluster:
    cluster = new_cluster()
    cluster.up('--example', 'hello')
    return cluster


def pods(cluster: LocalCluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.get('pods')['items']
    return found


def container_processes(cluster: LocalCluster, pod_ip: str) -> list[psutil.Process]:
    """The processes that listen on a pod's address: its containers."""
    return [
        psutil.Process(c.pid)
        for c in psutil.net_connections('tcp')
        if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.ip == pod_ip and c.pid
    ]


def until(cluster: LocalCluster, name: str, jsonpath: str) -> None:
    cluster.kubectl('wait', f'pod/{name}', f'--for=jsonpath={jsonpath}', '--timeout=60s')


def test_a_killed_container_is_restarted_and_counted(hello: LocalCluster) -> None:
    pod = pods(hello)[0]
    (process,) = container_processes(hello, pod['status']['podIP'])
    os.kill(process.pid, signal.SIGKILL)
    until(hello, pod['metadata']['name'], '{.status.containerStatuses[0].restartCount}=1')
    until(hello, pod['metadata']['name'], '{.status.containerStatuses[0].ready}=true')
    last = hello.get('pod', pod['metadata']['name'])['status']['containerStatuses'][0]['lastState']
    assert last['terminated']['exitCode'] == 137
    (again,) = container_processes(hello, pod['status']['podIP'])
    assert again.pid != process.pid


def test_pods_outlive_their_agent_and_are_adopted(hello: LocalCluster) -> None:
    before = {p['metadata']['name']: container_processes(hello, p['status']['podIP'])[0].pid for p in pods(hello)}
    hello.kill('node-1')
    hello.kill('node-2')
    # A new pod proves that the agents are back; the old processes must be the same ones.
    hello.kubectl('scale', 'deployment', 'hello', '--replicas=4')
    hello.kubectl('rollout', 'status', 'deployment/hello', '--timeout=80s')
    after = {p['metadata']['name']: p for p in pods(hello)}
    for name, pid in before.items():
        assert container_processes(hello, after[name]['status']['podIP'])[0].pid == pid
        assert after[name]['status']['containerStatuses'][0]['restartCount'] == 0


def test_writes_resume_after_the_store_leader_was_killed(hello: LocalCluster) -> None:
    for n in range(3):
        hello.kill('store-leader')
        hello.kubectl('create', 'configmap', f'after-{n}', '--from-literal=a=b')
    assert {f'after-{n}' for n in range(3)} <= {c['metadata']['name'] for c in hello.get('configmaps')['items']}


def test_another_manager_acts_after_the_leader_was_killed(hello: LocalCluster) -> None:
    hello.kill('manager-leader')
    hello.kubectl('scale', 'deployment', 'hello', '--replicas=4')
    hello.kubectl('rollout', 'status', 'deployment/hello', '--timeout=80s')


def test_everything_killed_at_once_comes_back(hello: LocalCluster) -> None:
    hello.kubectl('create', 'configmap', 'precious', '--from-literal=a=b')
    names = {p['metadata']['name'] for p in pods(hello)}
    for process in hello.processes():
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    hello.up('--example', 'hello')
    assert hello.get('configmap', 'precious')['data'] == {'a': 'b'}
    hello.kubectl('rollout', 'status', 'deployment/hello', '--timeout=60s')
    assert {p['metadata']['name'] for p in pods(hello)} == names
    hello.kubectl('wait', 'pods', '--all', '--for=condition=Ready', '--timeout=60s')


def test_the_example_manifest_is_valid_yaml_for_the_api(hello: LocalCluster) -> None:
    done = hello.kubectl('apply', '-f', str(ROOT / 'examples' / 'hello.yaml'), '--dry-run=server', '-o', 'json')
    assert {o['kind'] for o in json.loads(done.stdout)['items']} == {'Deployment', 'Service'}
