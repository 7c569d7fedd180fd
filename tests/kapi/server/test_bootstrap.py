"""The first objects, when several servers make them at once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from kapi.storage.urls import open_storage


async def test_servers_that_start_together_on_an_empty_store_all_come_up(serve: Any, env: Any) -> None:
    for _ in range(3):
        storage = open_storage('memory://', env)
        async with contextlib.AsyncExitStack() as stack:
            worlds = await asyncio.gather(*(stack.enter_async_context(serve(storage)) for _ in range(3)))
            admin = await worlds[0].user('admin', 'system:masters')
            services = (await admin.get('/api/v1/services')).json['items']
            assert [s['metadata']['name'] for s in services] == ['kubernetes']


RBAC = '/apis/rbac.authorization.k8s.io/v1'


async def test_bootstrap_roles_are_completed_at_every_start_unless_they_say_hands_off(serve: Any, env: Any) -> None:
    storage = open_storage('memory://', env)
    mine = {'verbs': ['get'], 'apiGroups': ['example.com'], 'resources': ['things']}

    async def read(admin: Any, *names: str) -> list[Any]:
        return [(await admin.get(f'{RBAC}/{name}')).json for name in names]

    roles = ('clusterroles/system:basic-user', 'clusterroles/system:discovery', 'clusterrolebindings/system:discovery')
    async with serve(storage) as world:
        admin = await world.user('admin', 'system:masters')
        basic, discovery, binding = await read(admin, *roles)
        hands_off = {'metadata': {'annotations': {'rbac.authorization.kubernetes.io/autoupdate': 'false'}}}
        assert (await admin.patch(f'{RBAC}/{roles[0]}', {'rules': [mine]})).status == 200
        assert (await admin.patch(f'{RBAC}/{roles[1]}', {'rules': [], **hands_off})).status == 200
        assert (await admin.patch(f'{RBAC}/{roles[2]}', {'subjects': []})).status == 200
        assert (await admin.delete(f'{RBAC}/clusterroles/view')).status == 200
    async with serve(storage) as world:
        admin = await world.user('admin', 'system:masters')
        mended, left, bound, view = await read(admin, *roles, 'clusterroles/view')
    assert (basic['rules'], discovery['rules'], binding['subjects']) != ([], [], [])
    assert mended['rules'] == [mine, *basic['rules']]
    assert not left.get('rules')
    assert bound['subjects'] == binding['subjects']
    assert view['aggregationRule']['clusterRoleSelectors'][0]['matchLabels']
