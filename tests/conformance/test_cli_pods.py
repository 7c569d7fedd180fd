"""Upstream's conformance tests of kubectl with running pods, on a cluster of real processes."""
# ruff: noqa: E501 — names of upstream's tests are kept whole, so that they can be searched for

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.conftest import LocalCluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
conformance = pytest.mark.conformance
Run = Callable[..., str]
SLEEP = ['sh', '-c', 'exec sleep 1000']


def controller(name: str, labels: dict[str, str], replicas: int = 1) -> str:
    container = {'name': name, 'image': 'busybox', 'command': SLEEP, 'ports': [{'name': 'p', 'containerPort': 6379}]}
    spec = {'terminationGracePeriodSeconds': 1, 'containers': [container]}
    template = {'metadata': {'labels': labels}, 'spec': spec}
    body = {'replicas': replicas, 'selector': labels, 'template': template}
    return json.dumps(
        {
            'apiVersion': 'v1',
            'kind': 'ReplicationController',
            'metadata': {'name': name, 'labels': labels},
            'spec': body,
        }
    )


@pytest.fixture
def kubectl(cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[Run]:
    """Real kubectl in a namespace of the test's own; gives what it printed."""
    namespace = request.node.name.removeprefix('test_').replace('_', '-')[:50].strip('-')
    cluster.kubectl('create', 'namespace', namespace)

    def run(*words: str, stdin: str | None = None) -> str:
        return cluster.kubectl('-n', namespace, *words, stdin=stdin).stdout

    run('wait', '--for=create', 'serviceaccount/default', '--timeout=60s')
    yield run
    cluster.kubectl('delete', 'namespace', namespace, '--wait=false')


@pytest.fixture
def pod(kubectl: Run) -> Callable[..., None]:
    """`kubectl run` one that sleeps, and wait until it is ready."""

    def make(name: str) -> None:
        kubectl('run', name, '--image=busybox', '--restart=Never', '--command', '--', *SLEEP)
        kubectl('wait', '--for=condition=Ready', f'pod/{name}', '--timeout=60s')

    return make


def ready(kubectl: Run, name: str, replicas: int) -> list[str]:
    """Names of the controller's pods once so many are ready and there are no others."""
    kubectl('wait', f'--for=jsonpath={{.status.readyReplicas}}={replicas}', f'rc/{name}', '--timeout=90s')
    template = '{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}'
    found = kubectl('get', 'pods', '-o', 'template', f'--template={template}', '-l', f'name={name}').split()
    assert len(found) == replicas
    return found


@conformance('[sig-cli] Kubectl client Update Demo should create and stop a replication controller [Conformance]')
@conformance('[sig-cli] Kubectl client Update Demo should scale a replication controller [Conformance]')
def test_a_controller_is_created_scaled_and_stopped(kubectl: Run) -> None:
    manifest = controller('update-demo', {'name': 'update-demo'}, 2)
    kubectl('create', '-f', '-', stdin=manifest)
    ready(kubectl, 'update-demo', 2)
    for replicas in (1, 2):
        kubectl('scale', 'rc', 'update-demo', f'--replicas={replicas}', '--timeout=5m')
        for name in ready(kubectl, 'update-demo', replicas):
            running = '{{range .status.containerStatuses}}{{if .state.running}}{{.image}}{{end}}{{end}}'
            assert kubectl('get', 'pod', name, '-o', 'template', f'--template={running}') == 'busybox'
    kubectl('delete', '--grace-period=0', '--force', '-f', '-', stdin=manifest)
    kubectl('wait', '--for=delete', 'pod', '-l', 'name=update-demo', '--timeout=60s')
    assert kubectl('get', 'rc,svc', '-l', 'name=update-demo', '--no-headers') == ''


@conformance(
    '[sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc and pods [Conformance]'
)
def test_describe_prints_what_matters(kubectl: Run, cluster: LocalCluster) -> None:
    labels = {'name': 'primary', 'app': 'agnhost'}
    kubectl('create', '-f', '-', stdin=controller('primary', labels))
    kubectl('create', 'service', 'clusterip', 'primary', '--tcp=6379:6379')
    [name] = ready(kubectl, 'primary', 1)
    while 'SuccessfulCreate' not in kubectl('get', 'events'):  # events come together, half a second later at most
        time.sleep(0.1)
    said = {}
    for what, wanted in {
        f'pod {name}': ['Name:', 'Namespace:', 'Node:', 'Labels:', 'app=agnhost', 'name=primary', 'Annotations:', 'Status:', 'Running', 'IP:', 'Controlled By:', 'ReplicationController/primary', 'Image:', 'State:', 'QoS Class:', 'BestEffort'],
        'rc primary': ['Name:', 'Namespace:', 'Selector:', 'Labels:', 'Annotations:', 'Replicas:', '1 current', '1 desired', 'Pods Status:', '1 Running', 'Pod Template:', 'Image:', 'Events:', 'SuccessfulCreate'],
        'service primary': ['Name:', 'Namespace:', 'Labels:', 'Annotations:', 'Selector:', 'Type:', 'ClusterIP', 'IP:', 'Port:', 'Endpoints:', 'Session Affinity:'],
        'namespace kube-system': ['Name:', 'Labels:', 'Annotations:', 'Status:', 'Active'],
        'node': ['Name:', 'Labels:', 'Annotations:', 'CreationTimestamp:', 'Conditions:', 'LastHeartbeatTime', 'Addresses:', 'Capacity:', 'Kernel Version:', 'Kubelet Version:', 'Non-terminated Pods:'],
    }.items():  # fmt: skip
        said[what] = kubectl('describe', *what.split())
        assert [w for w in wanted if w not in said[what]] == []


@conformance('[sig-cli] Kubectl client Kubectl expose should create services for rc [Conformance]')
def test_expose_makes_services_that_find_the_pods(kubectl: Run) -> None:
    kubectl('create', '-f', '-', stdin=controller('primary', {'name': 'primary'}))
    [name] = ready(kubectl, 'primary', 1)
    address = kubectl('get', 'pod', name, '-o', 'jsonpath={.status.podIP}')
    for source, service, port in (('rc', 'rm2', 1234), ('service', 'rm3', 2345)):
        exposed = 'primary' if source == 'rc' else 'rm2'
        kubectl('expose', source, exposed, f'--name={service}', f'--port={port}', '--target-port=6379')
        kubectl(
            'wait', f'--for=jsonpath={{.subsets[0].addresses[0].ip}}={address}', f'endpoints/{service}', '--timeout=60s'
        )
        found = json.loads(kubectl('get', 'endpoints', service, '-o', 'json'))['subsets'][0]
        assert found['addresses'][0]['targetRef']['name'] == name
        assert [p['port'] for p in found['ports']] == [6379]
        assert kubectl('get', 'service', service, '-o', 'jsonpath={.spec.ports[0].port}') == str(port)


@conformance('[sig-cli] Kubectl client Kubectl label should update the label on a resource [Conformance]')
def test_a_label_comes_and_goes(kubectl: Run, pod: Any) -> None:
    pod('pause')
    kubectl('label', 'pods', 'pause', 'testing-label=testing-label-value')
    assert 'testing-label-value' in kubectl('get', 'pod', 'pause', '-L', 'testing-label')
    kubectl('label', 'pods', 'pause', 'testing-label-')
    assert 'testing-label-value' not in kubectl('get', 'pod', 'pause', '-L', 'testing-label')


@conformance('[sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc [Conformance]')
def test_pods_of_a_controller_are_patched(kubectl: Run) -> None:
    kubectl('create', '-f', '-', stdin=controller('primary', {'name': 'primary'}))
    for name in ready(kubectl, 'primary', 1):
        kubectl('patch', 'pod', name, '-p', '{"metadata":{"annotations":{"x":"y"}}}')
        assert kubectl('get', 'pod', name, '-o', 'jsonpath={.metadata.annotations.x}') == 'y'


@conformance("[sig-cli] Kubectl client Kubectl replace should update a single-container pod's image [Conformance]")
def test_replace_changes_an_image(kubectl: Run, pod: Any) -> None:
    pod('e2e-test-httpd-pod')
    live = kubectl('get', 'pod', 'e2e-test-httpd-pod', '-o', 'json')
    changed = json.loads(live)
    changed['spec']['containers'][0]['image'] = 'alpine'
    kubectl('replace', '-f', '-', stdin=json.dumps(changed))
    assert kubectl('get', 'pod', 'e2e-test-httpd-pod', '-o', 'jsonpath={.spec.containers[0].image}') == 'alpine'


@conformance(
    '[sig-cli] Kubectl client Kubectl run pod should create a pod from an image when restart is Never [Conformance]'
)
@conformance(
    '[sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods [Conformance]'
)
def test_run_makes_a_pod_and_a_dry_run_leaves_it(kubectl: Run, pod: Any) -> None:
    pod('e2e-test-httpd-pod')
    said = json.loads(kubectl('get', 'pod', 'e2e-test-httpd-pod', '-o', 'json'))
    assert said['spec']['restartPolicy'] == 'Never'
    patch = json.dumps({'spec': {'containers': [{'name': 'e2e-test-httpd-pod', 'image': 'alpine'}]}})
    assert 'patched' in kubectl('patch', 'pod', 'e2e-test-httpd-pod', '-p', patch, '--dry-run=server')
    assert kubectl('get', 'pod', 'e2e-test-httpd-pod', '-o', 'jsonpath={.spec.containers[0].image}') == 'busybox'


@conformance('[sig-cli] Kubectl logs logs should be able to retrieve and filter logs [Conformance]')
def test_logs_are_filtered(kubectl: Run) -> None:
    script = 'for i in $(seq 30); do echo "$i GET /api/v1/namespaces/kube-system"; sleep 0.05; done'
    kubectl('run', 'logs-generator', '--image=busybox', '--restart=Never', '--', 'sh', '-c', script)
    kubectl('wait', '--for=jsonpath={.status.phase}=Succeeded', 'pod/logs-generator', '--timeout=90s')
    everything = kubectl('logs', 'logs-generator', 'logs-generator').splitlines()
    assert len(everything) == 30
    assert kubectl('logs', 'logs-generator', '--tail=1').splitlines() == [everything[-1]]
    assert len(kubectl('logs', 'logs-generator', '--limit-bytes=1')) == 1
    [stamped] = kubectl('logs', 'logs-generator', '--tail=1', '--timestamps').splitlines()
    stamp, _, line = stamped.partition(' ')
    assert line == everything[-1]
    assert datetime.fromisoformat(stamp[:26])
    first = kubectl('logs', 'logs-generator', '--timestamps').split(' ', 1)[0]
    assert kubectl('logs', 'logs-generator', '--since=24h').splitlines() == everything
    later = kubectl('logs', 'logs-generator', f'--since-time={stamp}').splitlines()
    assert everything[-1] in later
    assert len(later) < len(everything)
    assert first < stamp
