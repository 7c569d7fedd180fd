"""A damaged store member is replaced by one command, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.e2e.conftest import LocalCluster

pytestmark = pytest.mark.e2e


def ids(cluster: LocalCluster) -> list[int]:
    return list(json.loads((cluster.data / 'cluster.json').read_text())['members'])


def replace(cluster: LocalCluster, who: str) -> str:
    return cluster.kctl('cluster', 'replace', who, '--data-dir', str(cluster.data), check=False).stderr.strip()


def test_a_damaged_member_and_then_the_leader_are_replaced(new_cluster: Callable[[], LocalCluster]) -> None:
    cluster = new_cluster()
    cluster.up('--nodes', '0')
    cluster.kctl('create', 'configmap', 'kept', '--from-literal=a=b')
    (log,) = (cluster.data / 'store-2' / 'wal').glob('*.wal')
    with log.open('r+b') as f:
        f.seek(log.stat().st_size // 8)
        f.write(b'\xff' * 512)
    cluster.kill('store-2')
    assert 'catches up' in replace(cluster, 'store-2')
    assert ids(cluster) == [1, 4, 3]
    rows = cluster.kctl('cluster', 'status', '--data-dir', str(cluster.data)).stdout.splitlines()
    leader = next(row.split()[0] for row in rows if row.endswith('leader'))
    assert 'catches up' in replace(cluster, leader)
    assert 5 in ids(cluster)
    assert cluster.get('configmap', 'kept')['data'] == {'a': 'b'}
    cluster.kill('store-3' if leader != 'store-3' else 'store-1')
    cluster.kctl('create', 'configmap', 'after', '--from-literal=a=b')
    assert 'store-9 is no member of the store; there are store-1' in replace(cluster, 'store-9')
