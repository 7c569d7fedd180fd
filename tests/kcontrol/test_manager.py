"""The process: two managers, one acts; configuration; health."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import re
import socket

import aiohttp
import pytest
import yaml

from kclient.api import Client
from kclient.discovery import Discovery, Served
from kclient.errors import ConfigError
from kclient.kubeconfig import ClientConfig
from kcontrol.config import ControlConfig
from kcontrol.controllers import CONTROLLERS
from kcontrol.manager import UnknownController, choose, run
from kcontrol.runner import Runner, served_only
from kcore.meta.gvk import DEPLOYMENTS, NODES, PODS


@pytest.fixture
def kubeconfig(fake, tmp_path):
    path = tmp_path / 'kubeconfig'
    path.write_text(yaml.safe_dump({
        'clusters': [{'name': 'k', 'cluster': {'server': fake.url}}], 'users': [{'name': 'u', 'user': {}}],
        'contexts': [{'name': 'k', 'context': {'cluster': 'k', 'user': 'u'}}], 'current-context': 'k',
    }))  # fmt: skip
    return path


@pytest.fixture
def start(kubeconfig, env, background):
    """Start a manager; returns when it competes."""

    async def start(identity: str, **changes) -> asyncio.Task:
        config = ControlConfig(
            kubeconfig=kubeconfig, identity=identity, lease_duration_s=1.0, renew_deadline_s=0.6, retry_period_s=0.1,
            scheduler=False, **changes,
        )  # fmt: skip
        ready = asyncio.Event()
        task = background(run(config, env, ready.set))
        await ready.wait()
        return task

    return start


@pytest.fixture
def holder(fake):
    def ask() -> str:
        lease = fake.one('leases', 'kube-controller-manager', 'kube-system')
        return lease['spec']['holderIdentity'] if lease else ''

    return ask


async def test_of_two_managers_one_acts_and_the_other_takes_over(fake, start, holder, until):
    first = await start('one')
    await until(lambda: holder() == 'one')
    await start('two')
    await until(lambda: fake.one('serviceaccounts', 'default', 'default'))
    assert holder() == 'one'
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await until(lambda: holder() == 'two')
    fake.put('namespaces', {'metadata': {'name': 'later'}, 'spec': {'finalizers': ['kubernetes']}})
    await until(lambda: fake.one('serviceaccounts', 'default', 'later'))


async def test_health_metrics_and_queues_are_served(fake, start, holder, until):
    with socket.create_server(('127.0.0.1', 0)) as probe:
        address = f'127.0.0.1:{probe.getsockname()[1]}'
    await start('one', http=address)
    await until(lambda: fake.one('serviceaccounts', 'default', 'default'))
    async with aiohttp.ClientSession() as session:
        async with session.get(f'http://{address}/healthz') as response:
            assert await response.text() == 'ok'
        async with session.get(f'http://{address}/healthz?verbose') as response:
            verbose = await response.text()
        async with session.get(f'http://{address}/healthz/replicaset') as response:
            assert (response.status, await response.text()) == (200, 'ok')
        async with session.get(f'http://{address}/healthz/nobody') as response:
            assert response.status == 404
        async with session.get(f'http://{address}/metrics') as response:
            text = await response.text()
        async with session.get(f'http://{address}/debug/queues') as response:
            queues = await response.json()
    assert 'leader_election_master_status{name="kube-controller-manager"} 1.0' in text
    assert '[+]replicaset ok' in verbose
    assert 'workqueue_adds_total{name="serviceaccount"}' in text
    for name in ('queue_duration_seconds_count', 'work_duration_seconds_count', 'unfinished_work_seconds'):
        assert f'workqueue_{name}{{name="serviceaccount"}}' in text
    assert re.search(r'rest_client_requests_total\{code="201",host="127.0.0.1:\d+",method="POST"\} [1-9]', text)
    assert re.search(r'rest_client_request_duration_seconds_count\{host="127.0.0.1:\d+",verb="GET"\} [1-9]', text)
    assert 'process_resident_memory_bytes' in text
    assert 'node_collector_zone_size' in text
    assert 'workqueue_depth{name="garbage_collector_attempt_to_delete"}' in text
    assert 'running_managed_controllers{manager="kube-controller-manager",name="serviceaccount"} 1.0' in text
    assert queues['leading'] == {'kube-controller-manager': True}
    assert set(queues['queues']['replicaset']) >= {'queued', 'dirty', 'processing'}


async def test_a_reconcile_that_never_ends_is_unhealthy(env, settings):
    class Late:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Late()
    slow = next(d for d in CONTROLLERS if d.name == 'replicaset')
    client = Client(ClientConfig(('http://127.0.0.1:1',)), env, user_agent='x')
    runner = Runner(client, dataclasses.replace(env, clock=clock), settings(), [slow])
    queue = runner._running[0][1].queue
    queue.add('default/x')
    await queue.get()
    clock.now = 599.0
    assert runner.stuck() == {'replicaset': False}
    clock.now = 601.0
    assert runner.stuck() == {'replicaset': True}
    queue.done('default/x')
    assert runner.stuck() == {'replicaset': False}


def test_who_needs_a_kind_that_is_not_served_is_left_out():
    served = Discovery((Served(NODES, frozenset()), Served(PODS, frozenset())), {})
    names = {declared.name for declared in served_only(CONTROLLERS, served)}
    assert {'podgc', 'gc'} <= names
    assert not names & {'replicaset', 'nodelifecycle', 'legacy-serviceaccount-token-cleaner'}


def test_controllers_are_chosen_by_name(settings):
    assert [d.name for d in choose(settings(controllers=('gc', 'podgc')), CONTROLLERS)] == ['podgc', 'gc']
    assert 'gc' not in {d.name for d in choose(settings(controllers=('*', '-gc')), CONTROLLERS)}
    with pytest.raises(UnknownController, match="no controller 'nope'"):
        choose(settings(controllers=('nope',)), CONTROLLERS)


@pytest.mark.parametrize(
    ('flags', 'text'),
    [
        (['--identity', 'a b'], '--identity'),
        (['--identity', 'a', '--cluster-cidr', '10.0.0.0/30'], '--cluster-cidr'),
        (['--identity', 'a', '--lease-duration-s', '5'], 'lease_duration_s must be greater'),
    ],
)
def test_bad_flags_are_one_line(flags, text, capsys, tmp_path):
    with pytest.raises(SystemExit):
        ControlConfig.load(['--kubeconfig', str(tmp_path / 'x'), *flags], prog='kcontrol')
    error = capsys.readouterr().err
    assert text in error
    assert 'Traceback' not in error


async def test_a_missing_kubeconfig_is_said(env, tmp_path):
    config = ControlConfig(kubeconfig=tmp_path / 'absent', identity='a')
    with pytest.raises(ConfigError, match='absent'):
        await run(config, env, lambda: None)


def test_the_list_of_controllers_has_no_doubles():
    names = [declared.name for declared in CONTROLLERS]
    assert len(names) == len(set(names))


async def test_a_deployment_becomes_scheduled_pods_with_the_real_api_and_scheduler(
    kapi, env, background, tmp_path, until
):
    def kubeconfig(user: str):
        config, path = kapi(user), tmp_path / user
        b64 = {k: base64.b64encode(v).decode() for k, v in
               (('ca', config.ca_data), ('crt', config.client_cert), ('key', config.client_key))}  # fmt: skip
        cluster = {'server': config.servers[0], 'certificate-authority-data': b64['ca']}
        path.write_text(yaml.safe_dump({
            'clusters': [{'name': 'k', 'cluster': cluster}],
            'users': [{'name': 'u', 'user': {'client-certificate-data': b64['crt'], 'client-key-data': b64['key']}}],
            'contexts': [{'name': 'k', 'context': {'cluster': 'k', 'user': 'u'}}], 'current-context': 'k',
        }))  # fmt: skip
        return path

    config = ControlConfig(
        kubeconfig=kubeconfig('manager'), scheduler_kubeconfig=kubeconfig('scheduler'), identity='one',
    )  # fmt: skip
    async with Client(kapi('admin'), env, user_agent='admin') as admin:
        await admin.create(NODES, {'metadata': {'name': 'n1'}})
        room = {'cpu': '4', 'memory': '8Gi', 'pods': '110'}
        ready = {'type': 'Ready', 'status': 'True', 'lastHeartbeatTime': '2026-01-01T00:00:00Z'}
        status = {'capacity': room, 'allocatable': room, 'conditions': [ready]}
        await admin.patch(NODES, 'n1', {'status': status}, subresource='status')
        background(run(config, env, lambda: None))
        template = {'metadata': {'labels': {'app': 'web'}}, 'spec': {'containers': [{'name': 'c', 'image': 'x'}]}}
        spec = {'replicas': 5, 'selector': {'matchLabels': {'app': 'web'}}, 'template': template}
        await admin.create(DEPLOYMENTS, {'metadata': {'name': 'web', 'namespace': 'default'}, 'spec': spec})

        async def scheduled() -> bool:
            pods = (await admin.list(PODS, 'default')).items
            return len(pods) == 5 and all(p['spec'].get('nodeName') == 'n1' for p in pods)

        await until(scheduled)
        assert (await admin.get(NODES, 'n1'))['spec']['podCIDR'] == '127.64.0.0/24'
