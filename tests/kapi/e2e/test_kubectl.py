"""Real kubectl against the API server as a process: every verb that needs no controller or node."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import kubectls
from tests.hush import hushed

VERSIONS = ('1.27', '1.28', '1.29', '1.30', '1.31', '1.32', '1.33')
pytestmark = pytest.mark.e2e

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: IMAGE, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""


@pytest.fixture(scope='module')
def kubeconfig(authority: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An API server process; its kubeconfig."""
    cert, key = authority.issue('server', 'kubernetes')
    admin, admin_key = authority.issue('user-admin-system-masters', 'admin', 'system:masters')
    ca = authority.directory / 'ca.crt'
    command = [sys.executable, '-m', 'kapi', '--listen', '127.0.0.1:0', '--tls-cert', str(cert), '--tls-key', str(key)]
    with subprocess.Popen([*command, '--client-ca', str(ca)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = ''
        for line in process.stderr:
            if '"serving"' in line:
                address = line.partition('"address": "')[2].partition('"')[0]
                break
        assert address, 'the server did not start'
        path = tmp_path_factory.mktemp('kube') / 'config'
        path.write_text(f"""
apiVersion: v1
kind: Config
current-context: x
clusters: [{{name: c, cluster: {{server: "https://{address}", certificate-authority: {ca}}}}}]
users: [{{name: u, user: {{client-certificate: {admin}, client-key: {admin_key}}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
""")
        yield path
        process.terminate()
        process.stderr.read()


@pytest.fixture(params=VERSIONS)
def kubectl(request: pytest.FixtureRequest, kubeconfig: Path, tmp_path: Path) -> Callable[..., str]:
    """`kubectl('get', 'pods')` in a namespace of its own; fails on a non-zero exit unless `fails=True`."""
    program = kubectls().get(request.param)
    if program is None:
        pytest.skip(f'no kubectl {request.param} on this machine')
    namespace = f'v{request.param.replace(".", "-")}-{tmp_path.name[-12:].strip("_-").replace("_", "-").lower()}'
    env = {**os.environ, 'KUBECONFIG': str(kubeconfig), 'HOME': str(tmp_path)}

    def run(*args: str, stdin: str = '', fails: bool = False, where: str = namespace) -> str:
        scope = ['-n', where] if where else []
        done = subprocess.run(
            [program, *scope, *args], input=stdin, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode != 0) == fails, f'{args}: {done.stdout}{done.stderr}'
        return done.stdout + done.stderr

    run('create', 'namespace', namespace, where='')
    return run


def test_apply_twice_change_and_delete(kubectl: Callable[..., str]) -> None:
    first = MANIFEST.replace('IMAGE', 'nginx:1')
    assert 'deployment.apps/web created' in kubectl('apply', '-f', '-', stdin=first)
    assert 'deployment.apps/web unchanged' in kubectl('apply', '-f', '-', stdin=first)
    changed = first.replace('nginx:1', 'nginx:2')
    assert 'nginx:2' in kubectl('diff', '-f', '-', stdin=changed, fails=True)
    assert 'deployment.apps/web configured' in kubectl('apply', '-f', '-', stdin=changed)
    assert 'nginx:2' in kubectl('get', 'deploy', '-o', 'wide')
    assert 'serverside-applied' in kubectl('apply', '--server-side', '--force-conflicts', '-f', '-', stdin=changed)
    assert 'deployment.apps "web" deleted' in kubectl('delete', '-f', '-', stdin=changed)


def test_create_scale_set_and_rollout(kubectl: Callable[..., str]) -> None:
    kubectl('create', 'deployment', 'd', '--image=nginx')
    assert 'scaled' in kubectl('scale', 'deploy/d', '--replicas=3')
    assert 'scaled' in kubectl('scale', 'deploy/d', '--replicas=4', '--current-replicas=3')
    assert '4' in kubectl('get', 'deploy', 'd', '-o', 'jsonpath={.spec.replicas}')
    kubectl('set', 'image', 'deploy/d', 'nginx=nginx:9')
    kubectl('rollout', 'restart', 'deploy/d')
    kubectl('rollout', 'pause', 'deploy/d')
    assert 'restartedAt' in kubectl('get', 'deploy', 'd', '-o', 'yaml')
    assert 'exposed' in kubectl('expose', 'deploy/d', '--port=80')
    assert 'd' in kubectl('get', 'svc', '-o', 'name')


def test_create_label_annotate_patch_and_delete(kubectl: Callable[..., str]) -> None:
    kubectl('create', 'configmap', 'c', '--from-literal=a=b')
    kubectl('create', 'secret', 'generic', 's', f'--from-literal=p={hushed("q")}')
    kubectl('create', 'serviceaccount', 'sa')
    kubectl('label', 'cm', 'c', 'k=v')
    kubectl('annotate', 'cm', 'c', 'n=1')
    kubectl('patch', 'cm', 'c', '-p', '{"data":{"x":"y"}}')
    kubectl('patch', 'cm', 'c', '--type=json', '-p', '[{"op":"remove","path":"/data/a"}]')
    assert kubectl('get', 'cm', '-l', 'k=v', '-o', 'jsonpath={.items[0].data}') == '{"x":"y"}'
    assert 'configmap/c' in kubectl('get', 'cm,secret', '-o', 'name')
    assert 'deleted' in kubectl('delete', 'cm', '--all')
    assert 'NotFound' in kubectl('get', 'cm', 'c', fails=True)


def test_run_describe_wait_and_delete_a_pod(kubectl: Callable[..., str]) -> None:
    kubectl('run', 'p', '--image=busybox', '--', 'sleep', '1')
    assert 'Pending' in kubectl('get', 'pod', 'p')
    assert 'busybox' in kubectl('describe', 'pod', 'p')
    kubectl('wait', '--for=jsonpath={.status.phase}=Pending', 'pod/p', '--timeout=10s')
    assert 'deleted' in kubectl('delete', 'pod', 'p', '--now')


def test_discovery_and_explain(kubectl: Callable[..., str]) -> None:
    assert 'deployments' in kubectl('api-resources')
    assert 'apps/v1' in kubectl('api-versions')
    assert 'containers' in kubectl('explain', 'pod.spec')
    assert 'v1.33' in kubectl('version')


def test_mistakes_are_told_in_kubectls_words(kubectl: Callable[..., str]) -> None:
    broken = MANIFEST.replace('replicas: 2', 'replicas: "x"')
    assert 'cannot unmarshal string' in kubectl('create', '-f', '-', stdin=broken, fails=True)
    unknown = MANIFEST.replace('replicas: 2', 'replikas: 2')
    assert 'unknown field "spec.replikas"' in kubectl('create', '-f', '-', stdin=unknown, fails=True)
    assert 'NotFound' in kubectl('get', 'pod', 'none', fails=True)
    kubectl('create', 'configmap', 'twice')
    assert 'already exists' in kubectl('create', 'configmap', 'twice', fails=True)
