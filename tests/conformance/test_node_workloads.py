"""Upstream's conformance tests of workloads, accounts and logs that need real processes behind the pods."""
# ruff: noqa: E501 — names of upstream's tests are kept whole, so that they can be searched for

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from kcontrol.kinds import JOBS, REPLICATIONCONTROLLERS
from kcore.meta.gvk import PODS, REPLICASETS, Resource
from tests.conformance.pods import WITHIN_S, Obj, World, condition, first, open_world, says
from tests.conformance.scenarios import Ends, Scenario, Scenarios
from tests.e2e.conftest import LocalCluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180), pytest.mark.xdist_group('node-volumes')]
scenarios = Scenarios()
scenario = scenarios.add


def template(name: str, *command: str, policy: str = 'Never', **container: Any) -> Obj:
    c = {'name': 'c', 'image': 'busybox', **({'command': list(command)} if command else {}), **container}
    spec = {'restartPolicy': policy, 'terminationGracePeriodSeconds': 1, 'containers': [c]}
    return {'metadata': {'labels': {'app': name}}, 'spec': spec}


async def job_until(world: World, name: str, holds: Callable[[Obj], Any]) -> Obj:
    async with asyncio.timeout(WITHIN_S):
        while not holds(job := await world.client.get(JOBS, name, world.namespace)):
            await asyncio.sleep(0.1)
    return job


async def pods_of(world: World, name: str, count: int, holds: Callable[[Obj], Any]) -> list[Obj]:
    """The workload's pods, once there are so many for which `holds`."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            listed = await world.client.list(PODS, world.namespace, label_selector=f'app={name}')
            found = [p for p in listed.items if holds(p)]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.1)


# --- Jobs


@scenario('Job should run a job to completion when tasks sometimes fail and are locally restarted')
async def tasks_are_restarted(world: World, name: str) -> None:
    script = 'if [ -e /d/once ]; then exit 0; else touch /d/once; exit 1; fi'
    pod = template(name, 'sh', '-c', script, policy='OnFailure', volumeMounts=[{'name': 'd', 'mountPath': '/d'}])
    pod['spec']['volumes'] = [{'name': 'd', 'emptyDir': {}}]
    await world.make(JOBS, name, spec={'completions': 4, 'parallelism': 2, 'template': pod})
    await job_until(world, name, lambda j: condition(j, 'Complete') == 'True')
    restarts = [
        first(p)['restartCount'] for p in await pods_of(world, name, 4, lambda p: p['status']['phase'] == 'Succeeded')
    ]
    assert restarts == [1, 1, 1, 1]


@scenario('Job should create pods for an Indexed job with completion indexes and specified hostname')
async def an_indexed_job(world: World, name: str) -> None:
    pod = template(name, 'sh', '-c', 'echo "$JOB_COMPLETION_INDEX $(hostname)"')
    await world.make(
        JOBS, name, spec={'completions': 4, 'parallelism': 2, 'completionMode': 'Indexed', 'template': pod}
    )
    job = await job_until(world, name, lambda j: condition(j, 'Complete') == 'True')
    assert job['status']['completedIndexes'] == '0-3'
    pods = await pods_of(world, name, 4, lambda p: p['status']['phase'] == 'Succeeded')
    told = sorted([await world.logs(p['metadata']['name']) for p in pods])
    assert told == [f'{n} {name}-{n}\n' for n in range(4)]


@scenario('Job should allow to use the pod failure policy on exit code to fail the job early')
async def an_exit_code_fails_the_job(world: World, name: str) -> None:
    policy = {'rules': [{'action': 'FailJob', 'onExitCodes': {'containerName': 'c', 'operator': 'In', 'values': [42]}}]}
    spec = {'completions': 4, 'parallelism': 2, 'backoffLimit': 1000, 'podFailurePolicy': policy}
    await world.make(JOBS, name, spec={**spec, 'template': template(name, 'sh', '-c', 'exit 42')})
    job = await job_until(world, name, lambda j: condition(j, 'Failed') == 'True')
    assert next(c for c in job['status']['conditions'] if c['type'] == 'Failed')['reason'] == 'PodFailurePolicy'


@scenario('Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition')
async def a_disruption_is_ignored(world: World, name: str) -> None:
    policy = {'rules': [{'action': 'Ignore', 'onPodConditions': [{'type': 'DisruptionTarget', 'status': 'True'}]}]}
    script = f'if [ -e /dev/shm/{world.namespace}-{name} ]; then rm /dev/shm/{world.namespace}-{name}; exit 0; fi; touch /dev/shm/{world.namespace}-{name}; sleep 1000'
    spec = {'completions': 1, 'parallelism': 1, 'backoffLimit': 0, 'podFailurePolicy': policy}
    await world.make(JOBS, name, spec={**spec, 'template': template(name, 'sh', '-c', script)})
    (pod,) = await pods_of(world, name, 1, lambda p: 'running' in (first(p).get('state') or {}))
    victim = pod['metadata']['name']
    eviction = {
        'apiVersion': 'policy/v1',
        'kind': 'Eviction',
        'metadata': {'name': victim, 'namespace': world.namespace},
    }
    await world.client.create(PODS, eviction, subresource='eviction', name=victim)
    job = await job_until(world, name, lambda j: condition(j, 'Complete') == 'True')
    assert job['status']['succeeded'] == 1
    assert not job['status'].get('failed')


# --- replicas


def serving(resource: Resource) -> Scenario:
    async def run(world: World, name: str) -> None:
        pod = template(name, policy='Always', image='agnhost', args=['serve-hostname'],
                       readinessProbe={'tcpSocket': {'port': 9376}, 'periodSeconds': 1})  # fmt: skip
        selector = {'app': name} if resource is REPLICATIONCONTROLLERS else {'matchLabels': {'app': name}}
        await world.make(resource, name, spec={'replicas': 2, 'selector': selector, 'template': pod})
        for found in await pods_of(world, name, 2, lambda p: condition(p, 'Ready') == 'True'):
            who = found['metadata']['name']
            path = f'/api/v1/namespaces/{world.namespace}/pods/{who}:9376/proxy/'
            assert await (await world.client.request('GET', path)).text() == who

    return run


scenario('ReplicaSet should serve a basic image on each replica with a public image')(serving(REPLICASETS))
scenario('ReplicationController should serve a basic image on each replica with a public image')(
    serving(REPLICATIONCONTROLLERS)
)


# --- accounts


DISCOVER = """
import json, ssl, sys, urllib.request, jwt
folder = '/var/run/secrets/kubernetes.io/serviceaccount/'
token = open('/t/token').read()
tls = ssl.create_default_context(cafile=folder + 'ca.crt')
def read(path):
    request = urllib.request.Request(sys.argv[1] + path, headers={'Authorization': 'Bearer ' + open(folder + 'token').read()})
    return json.load(urllib.request.urlopen(request, context=tls))
about = read('/.well-known/openid-configuration')
keys = jwt.PyJWKSet.from_dict(read('/openid/v1/jwks'))
key = next(k for k in keys.keys if k.key_id == jwt.get_unverified_header(token)['kid'])
claims = jwt.decode(token, key.key, algorithms=[key.algorithm_name], audience='oidc-discovery-test', issuer=about['issuer'])
print('verified', claims['sub'])
"""


@scenario('ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer')
async def the_issuer_is_discovered(world: World, name: str) -> None:
    token = {'serviceAccountToken': {'path': 'token', 'audience': 'oidc-discovery-test'}}
    volumes = [{'name': 't', 'projected': {'sources': [token]}}]
    mounts = {'volumeMounts': [{'name': 't', 'mountPath': '/t'}]}
    await world.create(
        name, sys.executable, '-c', DISCOVER, world.client.config.servers[0], container=mounts, volumes=volumes
    )
    await says(world, name, f'verified system:serviceaccount:{world.namespace}:default')


IN_CLUSTER = """
from kubernetes import client, config
config.load_incluster_config()
print('server', client.VersionApi().get_code().git_version)
try:
    client.CoreV1Api().list_namespaced_pod('default')
except client.ApiException as e:
    print(e.status, e.body)
"""


async def test_an_official_client_configures_itself_in_a_pod(cluster: LocalCluster) -> None:
    async with open_world(cluster) as world:
        await world.create('p', sys.executable, '-c', IN_CLUSTER)
        text = await says(world, 'p', f'system:serviceaccount:{world.namespace}:default')
        assert text.startswith('server v1.')
        assert '403' in text


@pytest.fixture(scope='module')
def ends(cluster: LocalCluster) -> Ends:
    return scenarios.run(cluster)


@pytest.mark.parametrize('name', scenarios.rows())
def test_a_scenario_ends_well(ends: Ends, name: str) -> None:
    scenarios.judge(ends, name)


@pytest.mark.conformance('Kubectl logs logs should be able to retrieve and filter logs')
def test_logs_are_filtered(cluster: LocalCluster) -> None:
    cluster.kubectl('create', 'namespace', 'filtered')
    logs = ('logs', '-n', 'filtered', 'generator')
    try:
        cluster.kubectl('run', '-n', 'filtered', 'generator', '--image=agnhost', '--restart=Never', '--', 'logs-generator',
                        '--log-lines-total', '100', '--run-duration', '0s')  # fmt: skip
        cluster.kubectl(
            'wait', '-n', 'filtered', 'pod/generator', '--for=jsonpath={.status.phase}=Succeeded', '--timeout=60s'
        )
        text = cluster.kubectl(*logs).stdout
        assert len(text.splitlines()) == 100
        assert cluster.kubectl(*logs, '--tail=1').stdout == text.splitlines()[-1] + '\n'
        assert cluster.kubectl(*logs, '--limit-bytes=1').stdout == text[0]
        stamped = cluster.kubectl(*logs, '--tail=1', '--timestamps').stdout
        assert stamped.split(' ', 1)[1] == text.splitlines()[-1] + '\n'
        assert stamped[:2] == '20'
        assert len(cluster.kubectl(*logs, '--since=24h').stdout.splitlines()) == 100
        assert cluster.kubectl(*logs, '--since-time=2100-01-01T00:00:00Z').stdout == ''
    finally:
        cluster.kubectl('delete', 'namespace', 'filtered', '--wait=false')
