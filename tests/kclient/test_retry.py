"""Objects that others change too are changed in the end, or the caller hears why not."""

from __future__ import annotations

import pytest

from kclient.errors import Conflict, NotFound, failure
from kclient.retry import ATTEMPTS, change, retry_on_conflict
from kcore.meta.gvk import CONFIGMAPS


def config(name: str) -> dict:
    return {'metadata': {'name': name, 'namespace': 'default'}, 'data': {'v': '1'}}


async def test_a_change_that_meets_a_newer_object_is_made_again_from_that_one(client):
    old = await client.create(CONFIGMAPS, config('a'))
    await client.patch(CONFIGMAPS, 'a', {'data': {'v': '2'}}, 'default')
    seen = []

    def make(now):
        seen.append(now['data']['v'])
        return {'data': {'w': f'after {now["data"]["v"]}'}}

    changed = await change(client, CONFIGMAPS, old, make)
    assert seen == ['1', '2']
    assert changed['data'] == {'v': '2', 'w': 'after 2'}


async def test_nothing_is_written_when_the_newer_object_needs_nothing(api, client):
    old = await client.create(CONFIGMAPS, config('a'))
    new = await client.patch(CONFIGMAPS, 'a', {'data': {'done': 'yes'}}, 'default')
    left = await change(client, CONFIGMAPS, old, lambda now: None if 'done' in now['data'] else {'data': {'v': '3'}})
    assert left['metadata']['resourceVersion'] == new['metadata']['resourceVersion']


async def test_a_namesake_is_not_changed_in_the_place_of_what_is_gone(client):
    old = await client.create(CONFIGMAPS, config('a'))
    await client.delete(CONFIGMAPS, 'a', 'default')
    await client.create(CONFIGMAPS, config('a'))
    with pytest.raises(NotFound):
        await change(client, CONFIGMAPS, old, lambda _: {'data': {'v': '2'}})
    assert (await client.get(CONFIGMAPS, 'a', 'default'))['data'] == {'v': '1'}


async def test_an_object_that_never_stands_still_is_given_up_after_five_attempts(env):
    tries = []

    async def attempt():
        tries.append(1)
        raise Conflict(failure(409, 'Conflict', 'changed'))

    with pytest.raises(Conflict):
        await retry_on_conflict(env, attempt)
    assert len(tries) == ATTEMPTS
