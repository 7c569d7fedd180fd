"""The cluster's flow schemas and levels: kept where they are ours, told of when they lead nowhere; dumps."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

from kapi.flow import keeper
from kapi.server import bootstrap
from kcore import tasks

GROUP = '/apis/flowcontrol.apiserver.k8s.io/v1'
LEVELS, SCHEMAS = f'{GROUP}/prioritylevelconfigurations', f'{GROUP}/flowschemas'
AUTOUPDATE = 'apf.kubernetes.io/autoupdate-spec'
CONCURRENT = 40


async def by_name(api: Any, path: str) -> dict[str, Any]:
    return {o['metadata']['name']: o for o in (await api.get(path)).json['items']}


async def test_a_second_start_changes_nothing(world: Any, api: Any) -> None:
    before = await by_name(api, LEVELS) | await by_name(api, SCHEMAS)
    await bootstrap.ensure_flows(world.server)
    assert await by_name(api, LEVELS) | await by_name(api, SCHEMAS) == before


async def shares(api: Any, name: str, count: int, mark: str | None) -> None:
    change = {
        'metadata': {'annotations': {AUTOUPDATE: mark}}, 'spec': {'limited': {'nominalConcurrencyShares': count}}
    }  # fmt: skip
    assert (await api.patch(f'{LEVELS}/{name}', change)).status == 200


async def test_suggested_objects_are_ours_until_an_administrator_says_otherwise(world: Any, api: Any) -> None:
    await shares(api, 'workload-low', 1, 'true')
    await shares(api, 'workload-high', 2, 'false')
    await shares(api, 'system', 3, None)  # changed by somebody, and nobody says whose it is
    await shares(api, 'catch-all', 4, 'false')  # mandatory
    await api.delete(f'{SCHEMAS}/service-accounts')
    await bootstrap.ensure_flows(world.server)
    found = await by_name(api, LEVELS)
    limits = {n: o['spec']['limited']['nominalConcurrencyShares'] for n, o in found.items() if 'limited' in o['spec']}
    assert {n: limits[n] for n in ('workload-low', 'workload-high', 'system', 'catch-all')} == {
        'workload-low': 100, 'workload-high': 2, 'system': 3, 'catch-all': 5
    }  # fmt: skip
    assert found['system']['metadata']['annotations'][AUTOUPDATE] == 'false'
    assert 'service-accounts' in await by_name(api, SCHEMAS)


async def test_what_an_exempt_level_lends_is_for_the_administrator_to_say(world: Any, api: Any) -> None:
    lent = {'nominalConcurrencyShares': 10, 'lendablePercent': 50}
    await api.patch(f'{LEVELS}/exempt', {'spec': {'exempt': lent}})
    await bootstrap.ensure_flows(world.server)
    assert (await api.get(f'{LEVELS}/exempt')).json['spec']['exempt'] == lent


def schema(name: str, level: str) -> dict[str, Any]:
    rule = {'verbs': ['*'], 'apiGroups': ['*'], 'resources': ['*'], 'namespaces': ['*'], 'clusterScope': True}
    subject = {'kind': 'User', 'user': {'name': 'bob'}}
    spec = {'priorityLevelConfiguration': {'name': level}, 'matchingPrecedence': 50,
            'rules': [{'subjects': [subject], 'resourceRules': [rule]}]}  # fmt: skip
    return {'metadata': {'name': name}, 'spec': spec}


async def test_a_schema_whose_level_does_not_exist_says_so_and_matches_nothing(world: Any, api: Any) -> None:
    loop = tasks.start_detached('keeper', keeper.keep(world.server))
    try:
        async with asyncio.timeout(20), api.watch(f'{SCHEMAS}?watch=true&resourceVersion=0') as event:
            assert (await api.post(SCHEMAS, schema('lost', 'nowhere'))).status == 201

            async def condition() -> dict[str, Any]:
                while True:
                    seen = (await event())['object']
                    if seen['metadata']['name'] == 'lost' and (seen.get('status') or {}).get('conditions'):
                        return dict(seen['status']['conditions'][0])

            lost = await condition()
            assert (lost['type'], lost['status'], lost['reason']) == ('Dangling', 'True', 'NotFound')
            assert lost['message'].endswith('named "nowhere" but there is no such object')
            bob = await world.user('bob')
            uid = (await api.get(f'{SCHEMAS}/global-default')).json['metadata']['uid']
            assert (await bob.get('/api/v1/pods')).headers['X-Kubernetes-PF-FlowSchema-UID'] == uid
            spec = {'type': 'Limited', 'limited': {'limitResponse': {'type': 'Reject'}}}
            assert (await api.post(LEVELS, {'metadata': {'name': 'nowhere'}, 'spec': spec})).status == 201
            found = await condition()
            assert (found['status'], found['reason']) == ('False', 'Found')
            uid = (await api.get(f'{LEVELS}/nowhere')).json['metadata']['uid']
            assert (await bob.get('/api/v1/pods')).headers['X-Kubernetes-PF-PriorityLevel-UID'] == uid
    finally:
        await tasks.stop(loop)


async def test_seats_that_nobody_uses_are_lent_to_a_level_that_wants_more(serve: Any) -> None:
    async with serve(max_requests_inflight=200, max_mutating_requests_inflight=100) as world:
        fair = world.server.fairness
        fair.refresh()
        low, election = fair.levels['workload-low'], fair.levels['leader-election']
        low.demand.note(290)
        fair.adjust()
        assert low.limit > low.nominal
        assert election.limit >= election.nominal, 'it lends nothing'
        assert abs(sum(lv.limit for lv in fair.levels.values()) - sum(lv.nominal for lv in fair.levels.values())) <= 4
        low.demand.note(0)
        for _ in range(200):  # what is not wanted any more comes back slowly
            fair.levels['system'].demand.note(100)
            fair.adjust()
        assert fair.levels['system'].limit >= fair.levels['system'].nominal


async def test_lists_of_many_objects_take_several_seats(world: Any, api: Any) -> None:
    for number in range(250):
        await api.post('/api/v1/namespaces/default/configmaps', {'metadata': {'name': f'c{number}'}})
    widths: list[int] = []
    fair = world.server.fairness
    enter = fair.enter

    async def entered(ticket: Any, width: int) -> Any:
        widths.append(width)
        return await enter(ticket, width)

    fair.enter = entered
    bob = await world.user('bob')
    for path in ('configmaps', 'configmaps?limit=120', 'configmaps/c1', 'secrets'):
        await bob.get(f'/api/v1/namespaces/default/{path}')
    assert widths == [3, 2, 1, 1]
    assert fair.levels['global-default'].busy == 0


async def test_a_watch_holds_its_seat_until_it_has_begun(world: Any, api: Any) -> None:
    world.server.fairness.refresh()
    level = world.server.fairness.levels['global-default']
    role = {'metadata': {'name': 'all'}, 'subjects': [{'kind': 'User', 'name': 'bob', 'apiGroup': GROUP_RBAC}],
            'roleRef': {'kind': 'ClusterRole', 'name': 'edit', 'apiGroup': GROUP_RBAC}}  # fmt: skip
    await api.post(f'/apis/{GROUP_RBAC}/v1/clusterrolebindings', role)
    bob = await world.user('bob')
    before = level.executing
    async with bob.watch('/api/v1/namespaces/default/configmaps?watch=true') as event:
        assert (await api.post('/api/v1/namespaces/default/configmaps', {'metadata': {'name': 'x'}})).status == 201
        while (await event())['object']['metadata']['name'] != 'x':
            pass
        assert level.executing == before
    stats = world.server.fairness.stats['global-default', 'global-default']
    assert (stats.dispatched, stats.executing) == (1, 0)


GROUP_RBAC = 'rbac.authorization.k8s.io'


async def test_dumps_show_levels_queues_and_those_who_wait(world: Any, api: Any) -> None:
    fair = world.server.fairness
    fair.refresh()
    level = fair.levels['global-default']
    level.limit, held = 1, SimpleNamespace(width=1)
    level.busy += held.width
    bob = await world.user('bob')
    asking = asyncio.ensure_future(bob.get('/api/v1/pods'))
    while not level.waiting:
        await asyncio.sleep(0.01)
    debug = '/debug/api_priority_and_fairness'
    rows = {
        line.split(',')[0]: [c.strip() for c in line.split(',')]
        for line in (await api.get(f'{debug}/dump_priority_levels')).text.splitlines()
    }
    head = rows['PriorityLevelName']
    assert dict(zip(head, rows['global-default'], strict=True))['WaitingRequests'] == '1'
    assert rows['exempt'][1] == '<none>'
    queues = (await api.get(f'{debug}/dump_queues')).text.splitlines()
    pending = Counter(c[2].strip() for line in queues if (c := line.split(','))[0] == 'global-default')
    assert pending == {'0': 127, '1': 1}
    requests = (await api.get(f'{debug}/dump_requests')).text.splitlines()
    assert [c.strip() for c in requests[1].split(',')][:2] == ['global-default', 'global-default']
    assert [c.strip() for c in requests[1].split(',')][4] == 'bob'
    assert (await api.get(f'{debug}/dump_nothing')).status == 404
    level.busy -= held.width
    level.limit = 49
    level.turns.join(level)
    assert (await asking).status in {200, 403}


async def test_those_who_are_refused_wait_for_their_turn(world: Any, api: Any) -> None:
    """A place in a turn is what a flood of bad credentials must not have more of than others."""
    turns = world.server.fairness.turns
    asked = 0
    turn = turns.refusals.turn

    async def counted() -> None:
        nonlocal asked
        asked += 1
        await turn()

    turns.refusals.turn = counted
    bad = {'Authorization': 'Bearer nobody'}
    nobody = await world.user()
    answers = await asyncio.gather(*(nobody.get('/api/v1/pods', headers=bad) for _ in range(CONCURRENT)))
    assert [a.status for a in answers] == [401] * CONCURRENT
    assert asked == CONCURRENT
    assert (await api.get('/api/v1/nowhere')).status == 404
    assert asked == CONCURRENT, 'who was let in has had the turn'


async def test_of_health_checks_by_anybody_few_are_read_at_once_and_all_are_answered(world: Any) -> None:
    seen: list[str] = []
    reads = world.server.fairness.turns.reads
    may = reads.may

    def asked(flow: str) -> bool:
        seen.append(flow)
        return bool(may(flow))

    reads.may = asked
    nobody, root = await world.user(), await world.user('root', 'system:masters')
    for _ in range(3):
        answers = await asyncio.gather(*(nobody.get('/livez') for _ in range(CONCURRENT)))
        assert [a.status for a in answers] == [200] * CONCURRENT
        assert (await root.get('/livez')).status == 200
    assert set(seen) == {'probes/'}, 'of masters nobody asks'
