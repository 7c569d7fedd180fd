"""Claims of Service addresses that leaked, were lost, or are shared."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from kapi.registry.addresses import IPS, PORTS
from kapi.server import repair
from kapi.server.repair import AddressRepair, Findings, compare

SERVICES = '/api/v1/namespaces/default/services'


def service(name: str, made: str = '2026-01-01T00:00:00Z') -> dict[str, Any]:
    return {'metadata': {'namespace': 'default', 'name': name, 'creationTimestamp': made}}


def test_of_several_users_the_one_that_the_claim_names_is_right_and_else_the_oldest() -> None:
    old, new = service('b'), service('a', '2026-01-02T00:00:00Z')
    assert compare({'k': [new, old]}, {}, ['k']) == Findings(lost=[('k', old)], doubles=[('k', new)])
    assert compare({'k': [old, new]}, {'k': {'owner': 'default/a'}}, ['k']) == Findings(doubles=[('k', old)])


def test_an_address_outside_of_the_ranges_is_reported_and_never_claimed() -> None:
    assert compare({'k': [service('a')]}, {}, []) == Findings(outside=[('k', service('a'))])


class Shop:
    """A server, what it holds, and time that the test moves."""

    def __init__(self, world: Any, api: Any) -> None:
        self.cache, self.api, self.now = world.server.cache, api, 0.0
        clock = SimpleNamespace(monotonic=lambda: self.now, wall=world.server.env.clock.wall)
        env = SimpleNamespace(clock=clock)
        known = ('cache', 'addresses', 'catalog', 'registry')
        self._repair = AddressRepair(SimpleNamespace(env=env, **{k: getattr(world.server, k) for k in known}))

    async def service(self, name: str, **spec: Any) -> Any:
        body = {'metadata': {'name': name}, 'spec': {'ports': [{'port': 80}], 'type': 'NodePort', **spec}}
        return (await self.api.post(SERVICES, body)).json

    async def repair(self, after_s: float = 0.0) -> None:
        self.now += after_s
        await self.cache.fresh()
        await self._repair.run_once()
        await self.cache.fresh()

    async def reasons(self) -> list[str]:
        return sorted(e['reason'] for e in (await self.api.get('/api/v1/namespaces/default/events')).json['items'])


@pytest.fixture
def shop(world: Any, api: Any) -> Shop:
    return Shop(world, api)


async def test_a_leaked_claim_is_given_back_once_no_request_can_be_behind_it(shop: Shop) -> None:
    kept = await shop.service('kept')
    leaks = [f'{IPS}127.96.7.7', f'{PORTS}30077']
    for key in leaks:
        await shop.cache.create(key, orjson.dumps({'metadata': {'name': 'x'}, 'owner': 'default/gone'}))
    await shop.repair()
    await shop.repair(repair.ORPHAN_S - 1)
    assert all(shop.cache.peek(key) for key in leaks)
    # The same address claimed anew by a request that is still under way: its time starts again.
    await shop.cache.delete(leaks[1])
    await shop.cache.create(leaks[1], orjson.dumps({'metadata': {'name': 'x'}, 'owner': 'default/coming'}))
    await shop.repair(2)
    assert [shop.cache.peek(key) is None for key in leaks] == [True, False]
    again = await shop.service('again', clusterIP='127.96.7.7')
    assert again['spec']['clusterIP'] == '127.96.7.7'
    assert shop.cache.peek(IPS + kept['spec']['clusterIP'])


async def test_a_lost_claim_is_made_again_so_that_nobody_else_gets_the_address(shop: Shop) -> None:
    spec = (await shop.service('web'))['spec']
    keys = [IPS + spec['clusterIP'], f'{PORTS}{spec["ports"][0]["nodePort"]}']
    for key in keys:
        await shop.cache.delete(key)
    await shop.repair()
    assert [shop.cache.peek(key).obj['owner'] for key in keys] == ['default/web'] * 2
    assert 'already allocated' in (await shop.service('thief', clusterIP=spec['clusterIP']))['message']
    assert await shop.reasons() == ['ClusterIPNotAllocated', 'PortNotAllocated']


async def test_two_services_with_one_address_are_told_of_once_and_left_alone(shop: Shop) -> None:
    spec = (await shop.service('web'))['spec']
    await shop.cache.delete(IPS + spec['clusterIP'])
    await shop.cache.fresh()
    second = await shop.service('second', clusterIP=spec['clusterIP'])
    for _ in range(3):
        await shop.repair()
    events = (await shop.api.get('/api/v1/namespaces/default/events')).json['items']
    assert [(e['reason'], e['involvedObject']['name']) for e in events] == [('ClusterIPAlreadyAllocated', 'web')]
    assert (await shop.api.get(f'{SERVICES}/second')).json['metadata'] == second['metadata']


async def test_a_healthy_cluster_is_not_written_to(shop: Shop) -> None:
    await shop.service('web')
    before = await shop.cache.current_revision()
    for _ in range(3):
        await shop.repair(repair.ORPHAN_S)
    assert await shop.cache.current_revision() == before
