"""A user who floods the API server, and a cluster that does not notice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ROOT, LocalCluster

pytestmark = pytest.mark.e2e

CONNECTIONS = 100
RENEWALS = 2
GRACE_S = 40
"""A node is given up when it has not renewed its lease for that long."""


@pytest.fixture
def flood(cluster: LocalCluster, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A hundred connections that list pods without a pause, as a user with the right to."""
    config = tmp_path / 'mallory'
    config.write_text(cluster.kctl('create', 'user', 'mallory', '--lasts', '1h').stdout)
    group = 'rbac.authorization.k8s.io'
    binding = {
        'apiVersion': f'{group}/v1', 'kind': 'RoleBinding', 'metadata': {'name': 'mallory', 'namespace': 'default'},
        'roleRef': {'apiGroup': group, 'kind': 'ClusterRole', 'name': 'view'},
        'subjects': [{'apiGroup': group, 'kind': 'User', 'name': 'mallory'}],
    }  # fmt: skip
    cluster.kctl('create', '-f', '-', stdin=json.dumps(binding))
    argv = [sys.executable, '-m', 'tests.e2e.flood', str(config), str(CONNECTIONS)]
    with subprocess.Popen(argv, cwd=ROOT, env=cluster.environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
            cluster.kctl('delete', 'rolebinding', 'mallory')


def deployment(namespace: str, turn: str) -> dict[str, Any]:
    container = {
        'name': 'main', 'image': 'busybox', 'command': ['sh', '-c', 'sleep 3600'],
        'env': [{'name': 'TURN', 'value': turn}],
    }  # fmt: skip
    return {
        'apiVersion': 'apps/v1', 'kind': 'Deployment', 'metadata': {'name': 'rolled', 'namespace': namespace},
        'spec': {
            'replicas': 3, 'selector': {'matchLabels': {'app': 'rolled'}},
            'template': {
                'metadata': {'labels': {'app': 'rolled'}},
                'spec': {'terminationGracePeriodSeconds': 0, 'containers': [container]},
            },
        },
    }  # fmt: skip


def renewals(cluster: LocalCluster, namespace: str) -> dict[str, datetime]:
    leases = cluster.get('leases', '-n', namespace)['items']
    return {i['metadata']['name']: datetime.fromisoformat(i['spec']['renewTime']) for i in leases}


def transitions(cluster: LocalCluster) -> dict[str, int]:
    """How often the leases of leaders have changed hands."""
    leases = cluster.get('leases', '-n', 'kube-system')['items']
    return {i['metadata']['name']: i['spec'].get('leaseTransitions', 0) for i in leases}


def test_leases_are_renewed_and_a_deployment_rolls_while_a_user_floods(
    cluster: LocalCluster, namespace: str, flood: subprocess.Popen[str]
) -> None:
    assert flood.stdout is not None
    nodes = {n['metadata']['name'] for n in cluster.get('nodes')['items']}
    leaders = transitions(cluster)
    assert flood.stdout.readline()
    seen: dict[str, list[datetime]] = {name: [moment] for name, moment in renewals(cluster, 'kube-node-lease').items()}
    assert set(seen) >= nodes
    turn = 0
    while turn < 2 or any(len(moments) <= RENEWALS for moments in seen.values()):
        cluster.kctl('apply', '-f', '-', stdin=json.dumps(deployment(namespace, str(turn))))
        cluster.kctl('rollout', 'status', 'deployment/rolled', '-n', namespace, '--timeout=60s')
        turn += 1
        for name, moment in renewals(cluster, 'kube-node-lease').items():
            if name in seen and moment > seen[name][-1]:
                seen[name].append(moment)
    for moments in seen.values():
        assert all((later - earlier).total_seconds() < GRACE_S for earlier, later in pairwise(moments))
    after = transitions(cluster)
    assert {name: after[name] for name in leaders} == leaders, 'a leader lost its lease'
    flood.kill()
    assert flood.stdout.readline(), 'the flood went on'
