"""Who may speak to whom in a local cluster: every pair of components proves itself to the other."""

from __future__ import annotations

import sys

import pytest

from tests.e2e.conftest import LocalCluster

pytestmark = pytest.mark.e2e


def test_the_store_answers_those_with_its_own_certificates_and_nobody_else(cluster: LocalCluster):
    pki = cluster.data / 'pki'
    endpoint = ('--endpoints', f'127.0.0.1:{cluster.port_base + 21}', '--timeout', '2')

    def ask(name: str) -> tuple[int, str]:
        files = ('--tls-cert', pki / f'{name}.crt', '--tls-key', pki / f'{name}.key', '--tls-ca', pki / 'store-ca.crt')
        done = cluster.run(sys.executable, '-m', 'kstore', 'status', *endpoint, *map(str, files), check=False)
        return done.returncode, done.stdout + done.stderr

    assert ask('kube-apiserver-store-client')[0] == 0
    for name in ('node-1', 'admin'):  # good certificates, of the cluster's other authority
        code, said = ask(name)
        assert (code, 'does not believe our certificate' in said) == (1, True), said
    assert cluster.run(sys.executable, '-m', 'kstore', 'status', *endpoint, check=False).returncode == 1
