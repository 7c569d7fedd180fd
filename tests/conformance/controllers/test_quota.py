"""ResourceQuota: what an object's life does to the figures that the quota shows, and which pods a scope counts."""
# ruff: noqa: PLR0917 — fixtures are parameters

from __future__ import annotations

import pytest

from kclient.errors import Forbidden
from kcontrol.kinds import RESOURCEQUOTAS
from kcore.meta.gvk import CONFIGMAPS, NAMESPACES, PODS, SECRETS, SERVICES

conformance = pytest.mark.conformance


def quota(name: str, hard: dict[str, str], *scopes: str) -> dict:
    return {'metadata': {'name': name, 'namespace': 'team'}, 'spec': {'hard': hard, 'scopes': list(scopes)}}


def named(name: str, **more) -> dict:
    return {'metadata': {'name': name, 'namespace': 'team'}, **more}


def pod(name: str, resources: dict | None = None, **spec) -> dict:
    return named(name, spec={'containers': [{'name': 'c', 'image': 'i', 'resources': resources or {}}], **spec})


@pytest.fixture(autouse=True)
async def team(admin):
    """A namespace without the Service `kubernetes`."""
    await admin.create(NAMESPACES, {'metadata': {'name': 'team'}})


@pytest.fixture
def shows(admin, until):
    """Wait until the quota shows that as much is used."""

    async def wait(name: str, **used: str) -> None:
        wanted = {k.replace('_', '.'): v for k, v in used.items()}

        async def seen() -> bool:
            status = (await admin.get(RESOURCEQUOTAS, name, 'team')).get('status') or {}
            return wanted.items() <= (status.get('used') or {}).items()

        await until(seen)

    return wait


@conformance('ResourceQuota should create a ResourceQuota and ensure its status is promptly calculated.')
async def test_a_new_quota_shows_its_bounds_and_nothing_used(admin, controllers, until):
    await controllers('resourcequota')
    hard = {'pods': '5', 'services': '10', 'requests.cpu': '1', 'requests.memory': '500Mi', 'count/secrets': '3'}
    await admin.create(RESOURCEQUOTAS, quota('q', hard))

    async def calculated() -> bool:
        status = (await admin.get(RESOURCEQUOTAS, 'q', 'team')).get('status') or {}
        return status == {'hard': hard, 'used': dict.fromkeys(hard, '0')}

    await until(calculated)


@conformance('ResourceQuota should create a ResourceQuota and capture the life of a configMap.')
@conformance('ResourceQuota should create a ResourceQuota and capture the life of a secret.')
@pytest.mark.parametrize('resource', [CONFIGMAPS, SECRETS], ids=lambda r: r.plural)
async def test_what_is_created_is_counted_until_it_is_deleted(admin, controllers, shows, resource):
    await controllers('resourcequota')
    await admin.create(resource, named('before'))
    await admin.create(RESOURCEQUOTAS, quota('q', {resource.plural: '2'}))
    await shows('q', **{resource.plural: '1'})
    await admin.create(resource, named('mine'))
    await shows('q', **{resource.plural: '2'})
    with pytest.raises(Forbidden, match=f'exceeded quota: q, requested: {resource.plural}=1'):
        await admin.create(resource, named('too-many'))
    await admin.delete(resource, 'mine', 'team')
    await shows('q', **{resource.plural: '1'})


@conformance('ResourceQuota should create a ResourceQuota and capture the life of a service.')
async def test_services_are_counted_by_their_type(admin, controllers, shows):
    await controllers('resourcequota')
    hard = {'services': '2', 'services.nodeports': '1', 'services.loadbalancers': '1'}
    await admin.create(RESOURCEQUOTAS, quota('q', hard))
    await shows('q', services='0', services_nodeports='0', services_loadbalancers='0')

    def service(name: str, kind: str) -> dict:
        return named(name, spec={'type': kind, 'ports': [{'port': 80}]})

    await admin.create(SERVICES, service('inner', 'ClusterIP'))
    await admin.create(SERVICES, service('outer', 'NodePort'))
    await shows('q', services='2', services_nodeports='1', services_loadbalancers='0')
    with pytest.raises(Forbidden, match='exceeded quota'):
        await admin.create(SERVICES, service('balanced', 'LoadBalancer'))
    for name in ('inner', 'outer'):
        await admin.delete(SERVICES, name, 'team')
    await shows('q', services='0', services_nodeports='0')


@conformance('ResourceQuota should be able to update and delete ResourceQuota.')
async def test_a_quota_is_widened_and_given_up(admin, controllers, shows, exists):
    await controllers('resourcequota')
    await admin.create(RESOURCEQUOTAS, quota('q', {'configmaps': '0'}))
    await shows('q', configmaps='0')
    with pytest.raises(Forbidden):
        await admin.create(CONFIGMAPS, named('one'))
    await admin.patch(RESOURCEQUOTAS, 'q', {'spec': {'hard': {'configmaps': '1'}}}, 'team')
    assert (await admin.get(RESOURCEQUOTAS, 'q', 'team'))['spec']['hard'] == {'configmaps': '1'}
    await admin.create(CONFIGMAPS, named('one'))
    await admin.delete(RESOURCEQUOTAS, 'q', 'team')
    assert await exists(admin, RESOURCEQUOTAS, 'q', 'team') is None
    await admin.create(CONFIGMAPS, named('two'))


SOME = {'requests': {'cpu': '100m'}, 'limits': {'cpu': '200m'}}


@pytest.mark.parametrize(
    ('inside', 'outside', 'given'),
    [
        pytest.param('BestEffort', 'NotBestEffort', pod('p'), marks=conformance(
            'ResourceQuota should verify ResourceQuota with best effort scope.')),
        pytest.param('NotBestEffort', 'BestEffort', pod('p', SOME), marks=conformance(
            'ResourceQuota should verify ResourceQuota with best effort scope.')),
        pytest.param('NotTerminating', 'Terminating', pod('p'), marks=conformance(
            'ResourceQuota should verify ResourceQuota with terminating scopes.')),
        pytest.param('Terminating', 'NotTerminating', pod('p', activeDeadlineSeconds=3600), marks=conformance(
            'ResourceQuota should verify ResourceQuota with terminating scopes.')),
    ],
)  # fmt: skip
async def test_a_scope_counts_its_own_pods_only(admin, controllers, shows, inside, outside, given):
    await controllers('resourcequota')
    for scope in (inside, outside):
        await admin.create(RESOURCEQUOTAS, quota(scope.lower(), {'pods': '5'}, scope))
        await shows(scope.lower(), pods='0')
    await admin.create(PODS, given)
    await shows(inside.lower(), pods='1')
    await shows(outside.lower(), pods='0')
    await admin.delete(PODS, 'p', 'team', grace_period_s=0)
    await shows(inside.lower(), pods='0')
