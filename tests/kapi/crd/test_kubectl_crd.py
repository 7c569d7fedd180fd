"""Real kubectl with a custom resource against the API server as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.e2e.conftest import kubectls

pytestmark = pytest.mark.e2e
VERSIONS = ('1.27', '1.30', '1.33')


@pytest.fixture(scope='module')
def kubeconfig(authority: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An API server process; its kubeconfig."""
    cert, key = authority.issue('server', 'kubernetes')
    admin, admin_key = authority.issue('user-admin-system-masters', 'admin', 'system:masters')
    ca = authority.directory / 'ca.crt'
    command = [sys.executable, '-m', 'kapi', '--listen', '127.0.0.1:0', '--tls-cert', str(cert), '--tls-key', str(key)]
    with subprocess.Popen([*command, '--client-ca', str(ca)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(text for text in process.stderr if '"serving"' in text)
        address = line.partition('"address": "')[2].partition('"')[0]
        config = {
            'apiVersion': 'v1', 'kind': 'Config', 'current-context': 'c',
            'clusters': [{'name': 'c', 'cluster': {'server': f'https://{address}', 'certificate-authority': str(ca)}}],
            'users': [{'name': 'u', 'user': {'client-certificate': str(admin), 'client-key': str(admin_key)}}],
            'contexts': [{'name': 'c', 'context': {'cluster': 'c', 'user': 'u'}}],
        }  # fmt: skip
        path = tmp_path_factory.mktemp('kube') / 'config'
        path.write_bytes(orjson.dumps(config))
        try:
            yield path
        finally:
            process.terminate()
            process.stderr.read()


@pytest.fixture(params=VERSIONS)
def kubectl(request: pytest.FixtureRequest, kubeconfig: Path, tmp_path: Path) -> Any:
    found = kubectls().get(request.param)
    if found is None:
        pytest.skip(f'no kubectl {request.param} here')
    environment = {**os.environ, 'KUBECONFIG': str(kubeconfig), 'HOME': str(tmp_path)}

    def run(*words: str, stdin: Any = None, fails: bool = False) -> str:
        body = orjson.dumps(stdin).decode() if stdin is not None else None
        done = subprocess.run(
            [found, *words], input=body, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return run


def test_the_life_of_a_custom_resource(kubectl: Any, define: Any) -> None:
    spec = {'type': 'object', 'properties': {
        'cronSpec': {'type': 'string', 'description': 'When to run.'}, 'replicas': {'type': 'integer', 'default': 1},
    }, 'x-kubernetes-validations': [{'rule': 'self.replicas < 100', 'message': 'too many'}]}  # fmt: skip
    scale = {'specReplicasPath': '.spec.replicas', 'statusReplicasPath': '.status.replicas'}
    columns = [{'name': 'Replicas', 'type': 'integer', 'jsonPath': '.spec.replicas'}]
    crd = define(spec, subresources={'status': {}, 'scale': scale}, additionalPrinterColumns=columns)
    name = 'crd/crontabs.stable.example.com'
    tab = {
        'apiVersion': 'stable.example.com/v1',
        'kind': 'CronTab',
        'metadata': {'name': 'x'},
        'spec': {'cronSpec': 'a'},
    }
    kubectl('apply', '-f', '-', stdin=crd)
    kubectl('wait', '--for', 'condition=established', name, '--timeout=30s')
    assert 'created' in kubectl('apply', '-f', '-', stdin=tab)
    assert 'When to run.' in kubectl('explain', 'crontab.spec.cronSpec')
    assert kubectl('get', 'ct').split() == ['NAME', 'REPLICAS', 'x', '1']
    kubectl('scale', 'ct/x', '--replicas=4')
    assert 'too many' in kubectl('patch', 'ct', 'x', '--type=merge', '-p', '{"spec":{"replicas":400}}', fails=True)
    assert 'configured' in kubectl('apply', '-f', '-', stdin={**tab, 'spec': {'cronSpec': 'b'}})
    assert kubectl('get', 'ct', 'x', '-o', 'jsonpath={.spec.cronSpec} {.spec.replicas}') == 'b 4'
    assert 'unknown field "spec.nope"' in kubectl('apply', '-f', '-', stdin={**tab, 'spec': {'nope': 1}}, fails=True)
    kubectl('apply', '--server-side', '--force-conflicts', '-f', '-', stdin={**tab, 'spec': {'cronSpec': 'c'}})
    kubectl('delete', 'ct', 'x')
    kubectl('apply', '-f', '-', stdin=tab)
    kubectl('delete', name)
    assert 'crontabs' not in kubectl('api-resources', '--api-group=stable.example.com')
