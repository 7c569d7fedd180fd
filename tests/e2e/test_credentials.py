"""Who may speak to whom in a local cluster: every pair of components proves itself to the other."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from kclient.api import Client
from kclient.errors import ClientError, Forbidden, Unauthorized
from kclient.kubeconfig import ClientConfig, load
from kcore.env import Clock, Env
from kcore.meta.gvk import NODES, PODS, SERVICEACCOUNTS
from knode.join import Credentials, Invitation
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
    with ThreadPoolExecutor() as pool:  # each asks until its time is up
        for code, said in pool.map(ask, ('node-1', 'admin')):  # good certificates, of the cluster's other authority
            assert (code, 'does not believe our certificate' in said) == (1, True), said
    assert cluster.run(sys.executable, '-m', 'kstore', 'status', *endpoint, check=False).returncode == 1


def test_a_created_user_is_who_the_certificate_says_and_may_what_roles_say(cluster: LocalCluster, tmp_path: Path):
    config = tmp_path / 'alice'
    config.write_text(cluster.kctl('create', 'user', 'alice', '--group', 'dev', '--lasts', '1h').stdout)

    def alice(*argv: str) -> subprocess.CompletedProcess[str]:
        return cluster.kctl('--kubeconfig', str(config), *argv, check=False)

    assert 'User "alice" cannot list resource "pods"' in alice('get', 'pods').stderr
    binding = {
        'apiVersion': 'rbac.authorization.k8s.io/v1', 'kind': 'RoleBinding',
        'metadata': {'name': 'dev-view', 'namespace': 'default'},
        'roleRef': {'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'ClusterRole', 'name': 'view'},
        'subjects': [{'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'Group', 'name': 'dev'}],
    }  # fmt: skip
    cluster.kctl('create', '-f', '-', stdin=yaml.safe_dump(binding))
    assert alice('get', 'pods').returncode == 0
    assert alice('get', 'secrets').returncode == 1
    assert alice('create', 'user', 'mallory', '--group', 'system:masters').returncode == 1


WHERE = 'echo here $(until getent hosts kubernetes.default; do sleep 0.1; done)'


@pytest.fixture
def worker(cluster: LocalCluster, tmp_path: Path) -> Iterator[Path]:
    """The data directory of a node that has joined the running cluster by a token."""
    join = cluster.kctl('token', 'create', '--ttl', '1h', '--print-join-command').stdout.split()
    data = tmp_path / 'worker'
    argv = [sys.executable, '-m', *join, '--name', 'worker', '--data-dir', str(data)]
    with (tmp_path / 'worker.log').open('w') as log:
        process = subprocess.Popen(argv, env=cluster.environment, stdout=log, stderr=log)
    try:
        yield data
    finally:
        process.terminate()
        process.wait(timeout=30)
        cluster.kctl('delete', 'node', 'worker', check=False)


def test_a_machine_joins_with_a_token_and_runs_pods_with_credentials_of_its_own(cluster: LocalCluster, worker: Path):
    cluster.kctl('wait', 'node/worker', '--for=create', '--timeout=60s')
    cluster.kctl('wait', 'node/worker', '--for=condition=Ready', '--timeout=60s')
    pod = {
        'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'on-worker', 'namespace': 'default'},
        'spec': {
            'nodeName': 'worker', 'terminationGracePeriodSeconds': 0, 'restartPolicy': 'Never',
            'containers': [{'name': 'main', 'image': 'busybox', 'command': ['sh', '-c', WHERE]}],
        },
    }  # fmt: skip
    cluster.kctl('create', '-f', '-', stdin=yaml.safe_dump(pod))
    cluster.kctl('wait', 'pod/on-worker', '--for=jsonpath={.status.phase}=Succeeded', '--timeout=60s')
    api = cluster.get('service', 'kubernetes')['spec']['clusterIP']
    says = cluster.kctl('logs', 'on-worker').stdout  # the API server believes its serving certificate
    assert says.split() == ['here', api, 'kubernetes.default.svc.cluster.local']
    node = cluster.get('node', 'worker')
    assert node['metadata']['annotations']['dns.kubeling.dev/address'].endswith(':10053')
    cluster.kctl('delete', 'pod', 'on-worker')
    config = load(worker / 'kubeconfig', Env.real())
    assert (config.token, config.client_key is not None) == ('', True)
    told = cluster.kctl('--kubeconfig', str(worker / 'kubeconfig'), 'get', 'secrets', check=False).stderr
    assert 'User "system:node:worker"' in told


def test_a_token_of_another_cluster_or_none_gives_nothing(cluster: LocalCluster, tmp_path: Path):
    server = f'https://127.0.0.1:{cluster.port_base + 3}'
    cluster.kctl('token', 'create')  # the cluster describes itself
    file = tmp_path / 'token'
    file.write_text('abcdef.0123456789abcdef\n')
    for variable, flags, why in (
        ('', ('--token-file', str(file)), 'does not know this token'),
        ('no', (), 'looks like'),
    ):
        program = ('env', f'KUBELING_JOIN_TOKEN={variable}', sys.executable, '-m', 'kctl', 'agent')
        where = ('--server', server, '--name', 'w', '--data-dir', str(tmp_path / 'w'))
        refused = cluster.run(*program, *where, *flags, check=False)
        assert (refused.returncode, why in refused.stderr) == (1, True), refused.stderr


async def test_keys_and_authorities_rotate_under_traffic_and_nobody_restarts(cluster: LocalCluster, tmp_path: Path):
    env, old, new = Env.real(), tmp_path / 'old', cluster.data / 'kubeconfig'
    old.write_bytes(new.read_bytes())
    cluster.kctl('create', 'sa', 'turner')
    async with Client(load(old, env), env, user_agent='test') as admin:
        about = {'apiVersion': 'authentication.k8s.io/v1', 'kind': 'TokenRequest', 'spec': {}}
        asked = {**about, 'metadata': {'name': 'turner', 'namespace': 'default'}}
        token = (await admin.create(SERVICEACCOUNTS, asked, subresource='token'))['status']['token']
    stopped = asyncio.Event()
    answered = {'kept': 0, 'fresh': 0}

    async def traffic() -> None:
        """One client that keeps its connections, and one that makes a new one for every request."""
        async with Client(load(new, env), env, user_agent='kept') as kept:
            while not stopped.is_set():
                await kept.list(NODES)
                answered['kept'] += 1
                async with Client(load(old, env), env, user_agent='fresh') as fresh:
                    await fresh.list(PODS, 'default')
                answered['fresh'] += 1

    async def go_on() -> None:
        seen = dict(answered)
        while any(answered[k] < seen[k] + 20 for k in answered):
            await asyncio.sleep(0.01)

    async def rotate(*flags: str) -> None:
        await asyncio.to_thread(cluster.kctl, 'cluster', 'rotate', '--data-dir', str(cluster.data), *flags)

    async with asyncio.TaskGroup() as group:
        group.create_task(traffic())
        for flags in ((), ('--authorities',)):
            served = await fingerprint(cluster)
            await rotate(*flags)
            await go_on()
            assert await fingerprint(cluster) != served
        await asyncio.to_thread(cluster.kill, 'store-leader')  # the store is dialled anew, with new certificates
        await go_on()
        stopped.set()
    await as_user(new, token, Forbidden)  # known, and without a role
    await rotate('--forget-old')
    await as_user(new, token, Unauthorized)
    async with Client(load(new, env), env, user_agent='new') as client:
        await client.list(NODES)
    refused = await asyncio.to_thread(cluster.kctl, '--kubeconfig', str(old), 'get', 'nodes', check=False)
    assert refused.returncode == 1
    assert re.search('closed|reset', refused.stderr), refused.stderr  # right after the handshake


async def as_user(config: Path, token: str, outcome: type[ClientError]) -> None:
    """A request with `token` ends as told, at the latest once the server has looked at its files again."""
    env, base = Env.real(), load(config, Env.real())
    async with (
        asyncio.timeout(30),
        Client(ClientConfig(base.servers, base.ca_data, token=token), env, user_agent='turner') as client,
    ):
        while True:
            try:
                await client.list(NODES)
            except outcome:
                return
            except ClientError:
                await asyncio.sleep(0.1)


async def fingerprint(cluster: LocalCluster) -> bytes:
    """The certificate that the API server shows now."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection('127.0.0.1', cluster.port_base + 3, ssl=context)
    der: bytes = writer.get_extra_info('ssl_object').getpeercert(True)
    writer.close()
    return der


class Later:
    """A clock that may be put forward; everybody else's stays."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self.by = clock, timedelta(0)

    def wall(self) -> datetime:
        return self._clock.wall() + self.by

    def monotonic(self) -> float:
        return self._clock.monotonic()


async def test_a_joined_node_renews_its_certificates_by_itself_and_follows_a_new_authority(
    cluster: LocalCluster, tmp_path: Path
):
    real = Env.real()
    later = Later(real.clock)
    node = Credentials(replace(real, clock=later), tmp_path / 'joiner', 'joiner', '127.191.7.7')

    def shown() -> list[x509.Certificate]:
        return [x509.load_pem_x509_certificate(node.pair(w)[0].read_bytes()) for w in ('client', 'serving')]

    async def is_known() -> bool:
        argv = ('--kubeconfig', str(node.kubeconfig), 'get', 'secrets')
        told = await asyncio.to_thread(cluster.kctl, *argv, check=False)
        return 'User "system:node:joiner"' in told.stderr

    async def rotate(flag: str) -> None:
        await asyncio.to_thread(cluster.kctl, 'cluster', 'rotate', '--data-dir', str(cluster.data), flag)

    token = cluster.kctl('token', 'create').stdout.strip()
    await node.join(Invitation((f'https://127.0.0.1:{cluster.port_base + 3}',), token))
    cluster.kctl('token', 'delete', token)  # from now on it has nothing but its certificates
    first = shown()
    await node.renew()
    assert shown() == first
    later.by = (first[0].not_valid_after_utc - first[0].not_valid_before_utc) * 0.85
    await node.renew()
    second = shown()
    assert all(a.serial_number != b.serial_number for a, b in zip(first, second, strict=True))
    later.by = second[0].not_valid_after_utc - real.clock.wall() - timedelta(seconds=100)
    assert (node.good(), node.pause_s() < 6) == (True, True)  # refused until now, it asks more often
    later.by += timedelta(seconds=101)
    assert not node.good()
    later.by = timedelta(0)
    assert await is_known()

    await rotate('--authorities')
    async with asyncio.timeout(60):
        while any(a == b for a, b in zip(second, shown(), strict=True)) or node.due():
            await node.renew()
            await asyncio.sleep(0.2)
    await rotate('--forget-old')
    async with asyncio.timeout(60):
        while not await is_known():
            await asyncio.sleep(0.2)
    await node.renew()
    assert node.authority.read_bytes().count(b'BEGIN') == 1
    assert not node.due()
