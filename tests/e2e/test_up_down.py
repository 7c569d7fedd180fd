"""The newcomer's commands: up, up again, down, and the obvious mistakes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import psutil
import pytest

from tests.e2e.conftest import LocalCluster

pytestmark = pytest.mark.e2e

AGENT_RSS_BYTES_MAX = 64 * 2**20
"""60 MB is what an idle agent may take; a fork of all that a cluster consists of came to 71."""


def listening(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def test_up_runs_the_example_up_again_says_so_and_down_leaves_nothing(new_cluster: Callable[[], LocalCluster]) -> None:
    cluster = new_cluster()
    first = cluster.up('--example', 'hello')
    assert 'The cluster is up after' in first.stderr
    deployment = cluster.get('deployment', 'hello')
    assert deployment['status']['availableReplicas'] == deployment['spec']['replicas']

    again = cluster.up('--example', 'hello')
    assert 'already runs' in again.stderr

    cluster.down()
    assert cluster.processes() == []
    assert not listening('127.0.0.1', cluster.port_base + 3)
    assert 'No cluster runs' in cluster.down().stderr


def test_a_cluster_that_was_stopped_comes_back_with_its_objects(new_cluster: Callable[[], LocalCluster]) -> None:
    cluster = new_cluster()
    cluster.up('--example', 'hello')
    uid = cluster.get('deployment', 'hello')['metadata']['uid']
    cluster.down()
    cluster.up('--example', 'hello')
    assert cluster.get('deployment', 'hello')['metadata']['uid'] == uid


def test_a_small_cluster_of_one_store_and_one_node_comes_up(new_cluster: Callable[[], LocalCluster]) -> None:
    cluster = new_cluster()
    cluster.up('--stores', '1', '--nodes', '1')
    assert len(cluster.get('nodes')['items']) == 1
    agent = psutil.Process(json.loads((cluster.data / 'run' / 'node-1.pid').read_text())['pid'])
    assert agent.memory_info().rss < AGENT_RSS_BYTES_MAX


def test_a_taken_port_is_one_sentence(new_cluster: Callable[[], LocalCluster]) -> None:
    cluster = new_cluster()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier cluster may linger
        taken.bind(('127.0.0.1', cluster.port_base + 3))
        taken.listen()
        refused = cluster.up(check=False)
    assert refused.returncode == 1
    assert f'127.0.0.1:{cluster.port_base + 3}, which is taken' in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_a_store_of_zero_members_is_refused_by_the_name_of_the_flag(new_cluster: Callable[[], LocalCluster]) -> None:
    refused = new_cluster().up('--stores', '0', check=False)
    assert refused.returncode == 1
    assert '--stores must be between' in refused.stderr
