"""Figures from real processes, through node agent and API server, to `kubectl top` and the autoscaler."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator

import psutil
import pytest

from kcore.meta import quantity
from knode.runtime.shim.container import MARK
from tests.e2e.conftest import LocalCluster

pytestmark = pytest.mark.e2e
Run = Callable[..., 'subprocess.CompletedProcess[str]']

NAMESPACE = 'figures'
BURN = """
import time
ballast = bytearray(30 << 20)
while True:
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass
    time.sleep(0.1)
"""
"""Uses some 150m and 40 MiB."""
LABELS = {'app': 'burn'}


def manifests() -> list[dict[str, object]]:
    requests = {'cpu': '50m'}
    container = {
        'name': 'c',
        'image': 'python',
        'command': ['python3', '-c', BURN],
        'resources': {'requests': requests},
    }
    template = {'metadata': {'labels': LABELS}, 'spec': {'containers': [container], 'terminationGracePeriodSeconds': 0}}
    spec = {'replicas': 1, 'selector': {'matchLabels': LABELS}, 'template': template}
    target = {'type': 'Utilization', 'averageUtilization': 50}
    metrics = [{'type': 'Resource', 'resource': {'name': 'cpu', 'target': target}}]
    scaled = {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'name': 'burn'}
    hpa = {'scaleTargetRef': scaled, 'minReplicas': 1, 'maxReplicas': 3, 'metrics': metrics}
    named = {'name': 'burn', 'namespace': NAMESPACE}
    return [
        {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': NAMESPACE}},
        {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'metadata': named, 'spec': spec},
        {'apiVersion': 'autoscaling/v2', 'kind': 'HorizontalPodAutoscaler', 'metadata': named, 'spec': hpa},
    ]


@pytest.fixture(scope='module')
def burning(cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The autoscaler has made three pods of one."""
    for obj in manifests():
        cluster.kctl('create', '-f', '-', stdin=json.dumps(obj))
    cluster.kctl('wait', '-n', NAMESPACE, '--for=jsonpath={.status.readyReplicas}=3', 'deploy/burn', '--timeout=90s')
    yield cluster
    cluster.kctl('delete', 'namespace', NAMESPACE, '--wait=false')


def test_load_makes_more_pods_and_the_autoscaler_says_why(burning: LocalCluster) -> None:
    hpa = burning.get('hpa', 'burn', '-n', NAMESPACE)
    assert hpa['status']['desiredReplicas'] == 3
    conditions = {c['type']: (c['status'], c['reason']) for c in hpa['status']['conditions']}
    assert conditions['ScalingActive'] == ('True', 'ValidMetricFound')
    assert hpa['status']['currentMetrics'][0]['resource']['current']['averageUtilization'] > 50


def test_top_shows_nodes_and_pods(burning: LocalCluster, each_kubectl: Run) -> None:
    nodes = each_kubectl('top', 'node').stdout.splitlines()
    assert [line.split()[0] for line in nodes[1:]] == ['node-1', 'node-2']
    pods = each_kubectl('top', 'pod', '-n', NAMESPACE, '--containers').stdout.splitlines()
    assert pods[0].split() == ['POD', 'NAME', 'CPU(cores)', 'MEMORY(bytes)']
    assert any(re.fullmatch(r'burn-\S+ +c +\d+m +\d+Mi *', line) for line in pods[1:])
    one = pods[1].split()[0]
    assert one in each_kubectl('top', 'pod', one, '-n', NAMESPACE).stdout


def test_kctl_shows_the_same(burning: LocalCluster) -> None:
    for what in (('node',), ('pod', '-n', NAMESPACE, '--containers'), ('pod', '-A', '--sum')):
        ours, theirs = (run('top', *what).stdout.splitlines() for run in (burning.kctl, burning.kubectl))
        assert ours[0].split() == theirs[0].split()
        assert [line.split()[0] for line in ours] == [line.split()[0] for line in theirs]


def resident() -> dict[str, int]:
    """Container id → bytes, by psutil."""
    found = {}
    for process in psutil.process_iter():
        try:
            if BURN in process.cmdline():
                found[process.environ()[MARK]] = process.memory_info().rss
        except psutil.Error:  # it has ended, or is somebody else's
            continue
    return found


def test_memory_is_what_psutil_says(burning: LocalCluster) -> None:
    items = burning.get('pods.metrics.k8s.io', '-n', NAMESPACE)['items']
    shown = {i['metadata']['name']: quantity.value(i['containers'][0]['usage']['memory']) for i in items}
    pods = burning.get('pods', '-n', NAMESPACE)['items']
    ids = {p['metadata']['name']: p['status']['containerStatuses'][0]['containerID'].partition('://')[2] for p in pods}
    truth = resident()
    assert shown == {name: pytest.approx(truth[ids[name]], rel=0.05) for name in shown}
    assert shown
