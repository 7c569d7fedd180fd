"""What the README tells a newcomer to type, with every kubectl found and with kctl."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Callable

import pytest
import yaml

from tests.e2e.conftest import ROOT, LocalCluster

pytestmark = pytest.mark.e2e
Run = Callable[..., 'subprocess.CompletedProcess[str]']


@pytest.fixture
def hello(cluster: LocalCluster, namespace: str) -> str:
    """A namespace in which examples/hello runs."""
    cluster.kctl('apply', '-n', namespace, '-f', str(ROOT / 'examples' / 'hello.yaml'))
    cluster.kctl('wait', '-n', namespace, '--for=condition=Available', 'deployment/hello', '--timeout=60s')
    return namespace


def header(text: str) -> list[str]:
    return [c for c in text.splitlines()[0].split('  ') if c.strip()]


def columns(text: str) -> list[str]:
    return [c.strip() for c in header(text)]


@pytest.mark.conformance('Conformance Tests should have at least two untainted nodes')
def test_a_new_cluster_has_two_nodes_that_take_pods(cluster: LocalCluster) -> None:
    nodes = cluster.get('nodes')['items']
    free = [n for n in nodes if not n['spec'].get('taints') and not n['spec'].get('unschedulable')]
    ready = [n for n in free for c in n['status']['conditions'] if (c['type'], c['status']) == ('Ready', 'True')]
    assert len(ready) >= 2


def test_nodes_and_pods_have_the_columns_of_kubernetes(each_kubectl: Run, hello: str) -> None:
    nodes = each_kubectl('get', 'nodes', '-o', 'wide').stdout
    assert columns(nodes) == [
        'NAME', 'STATUS', 'ROLES', 'AGE', 'VERSION', 'INTERNAL-IP', 'EXTERNAL-IP', 'OS-IMAGE', 'KERNEL-VERSION',
        'CONTAINER-RUNTIME',
    ]  # fmt: skip
    pods = each_kubectl('get', 'pods', '-n', hello, '-o', 'wide').stdout
    assert columns(pods) == [
        'NAME', 'READY', 'STATUS', 'RESTARTS', 'AGE', 'IP', 'NODE', 'NOMINATED NODE', 'READINESS GATES',
    ]  # fmt: skip
    deployments = each_kubectl('get', 'deployments', '-n', hello).stdout
    assert columns(deployments) == ['NAME', 'READY', 'UP-TO-DATE', 'AVAILABLE', 'AGE']


def test_kctl_prints_the_same_table_as_kubectl(cluster: LocalCluster, each_kubectl: Run, hello: str) -> None:
    for what in (('deployments,replicasets',), ('nodes', '-o', 'name'), ('pods', '-o', 'name')):
        ours = cluster.kctl('get', *what, '-n', hello).stdout
        theirs = each_kubectl('get', *what, '-n', hello).stdout
        assert without_age(ours) == without_age(theirs)


def without_age(text: str) -> list[list[str]]:
    """The cells of each row but the last, which is an age that passes between two commands."""
    return [line.split()[: -1 if 'AGE' in text else None] for line in text.splitlines()]


def test_scale_logs_and_delete_work(cluster: LocalCluster, each_kubectl: Run, hello: str) -> None:
    each_kubectl('scale', '-n', hello, 'deployment', 'hello', '--replicas=5')
    each_kubectl('rollout', 'status', '-n', hello, 'deployment/hello', '--timeout=60s')
    pods = json.loads(each_kubectl('get', 'pods', '-n', hello, '-o', 'json').stdout)['items']
    addresses = {p['status']['podIP'] for p in pods}
    assert len(addresses) == 5
    for address in addresses:
        with urllib.request.urlopen(f'http://{address}:8080/from-the-test', timeout=10) as answer:
            assert answer.status == 200
    name = pods[0]['metadata']['name']
    assert '/from-the-test' in each_kubectl('logs', '-n', hello, name).stdout
    each_kubectl('logs', '-n', hello, 'deploy/hello')
    each_kubectl('delete', '-n', hello, 'deployment', 'hello')
    each_kubectl('wait', '-n', hello, '--for=delete', f'pod/{name}', '--timeout=60s')


def test_describe_shows_the_events_of_a_pod(each_kubectl: Run, hello: str) -> None:
    text = each_kubectl('describe', 'pods', '-n', hello).stdout
    for reason in ('Scheduled', 'Pulled', 'Created', 'Started'):
        assert reason in text


def test_an_applied_change_rolls_out_and_can_be_undone(each_kubectl: Run, hello: str) -> None:
    each_kubectl('set', 'env', '-n', hello, 'deployment/hello', 'COLOUR=green')
    each_kubectl('rollout', 'status', '-n', hello, 'deployment/hello', '--timeout=60s')
    history = each_kubectl('rollout', 'history', '-n', hello, 'deployment/hello').stdout
    assert [line.split()[0] for line in history.splitlines()[2:4]] == ['1', '2']
    each_kubectl('rollout', 'undo', '-n', hello, 'deployment/hello')
    each_kubectl('rollout', 'status', '-n', hello, 'deployment/hello', '--timeout=60s')
    sets = json.loads(each_kubectl('get', 'rs', '-n', hello, '-o', 'json').stdout)['items']
    assert len(sets) == 2


GOOD = {
    'apiVersion': 'apps/v1',
    'kind': 'Deployment',
    'metadata': {'name': 'x'},
    'spec': {
        'selector': {'matchLabels': {'a': 'b'}},
        'template': {'metadata': {'labels': {'a': 'b'}}, 'spec': {'containers': [{'name': 'c', 'image': 'busybox'}]}},
    },
}
BAD = {
    'wrong type': ({**GOOD, 'spec': {**GOOD['spec'], 'replicas': 'three'}}, 'replicas'),  # type: ignore[dict-item]
    'unknown kind': ({**GOOD, 'kind': 'Deploymint'}, 'Deploymint'),
    'missing name': ({**GOOD, 'metadata': {}}, 'name'),
    'unknown field': ({**GOOD, 'spec': {**GOOD['spec'], 'replicaz': 3}}, 'replicaz'),  # type: ignore[dict-item]
    'too big': ({**GOOD, 'metadata': {'name': 'x', 'annotations': {'a': 'x' * 3_200_000}}}, ''),
}


@pytest.mark.parametrize('what', list(BAD))
@pytest.mark.parametrize('tool', ['kubectl', 'kctl'])
def test_a_bad_manifest_is_a_clear_error(cluster: LocalCluster, namespace: str, tool: str, what: str) -> None:
    manifest, named = BAD[what]
    run = cluster.kubectl if tool == 'kubectl' else cluster.kctl
    refused = run('apply', '-n', namespace, '-f', '-', stdin=yaml.safe_dump(manifest), check=False)
    assert refused.returncode == 1
    assert named in refused.stderr
    assert 'Traceback' not in refused.stderr
    assert 'Internal' not in refused.stderr


@pytest.mark.parametrize('tool', ['kubectl', 'kctl'])
def test_broken_yaml_is_a_clear_error(cluster: LocalCluster, tool: str) -> None:
    run = cluster.kubectl if tool == 'kubectl' else cluster.kctl
    refused = run('apply', '-f', '-', stdin='a: [1,\nb: }', check=False)
    assert refused.returncode == 1
    assert re.search(r'STDIN.*(line 1|:2)', refused.stderr)
    assert 'Traceback' not in refused.stderr
