"""What the node object says, and which events its changes are."""

from __future__ import annotations

import asyncio
import copy
from types import SimpleNamespace

import pytest

from kclient.errors import AlreadyExists
from kcore.tasks import start_detached, stop
from knode.addresses import AddressPool
from knode.config import NodeConfig
from knode.machine import describe
from knode.node import NodeKeeper
from knode.node_status import PRESSURES, transitions

CALM = {**dict.fromkeys(PRESSURES, 'False'), 'Ready': 'True'}


def listed(conditions):
    return [{'type': k, 'status': v} for k, v in conditions.items()]


@pytest.mark.parametrize(
    ('before', 'now', 'reasons'),
    [
        ({}, {**CALM, 'Ready': 'False'},
         ['NodeHasSufficientMemory', 'NodeHasNoDiskPressure', 'NodeHasSufficientPID']),
        ({**CALM, 'Ready': 'False'}, CALM, ['NodeReady']),
        (CALM, CALM, []),
        (CALM, {**CALM, 'Ready': 'False'}, ['NodeNotReady']),
        (CALM, {**CALM, 'MemoryPressure': 'True'}, ['NodeHasInsufficientMemory']),
        (CALM, {**CALM, 'DiskPressure': 'True', 'PIDPressure': 'True'},
         ['NodeHasDiskPressure', 'NodeHasInsufficientPID']),
        (dict.fromkeys(CALM, 'Unknown'), CALM,
         ['NodeHasSufficientMemory', 'NodeHasNoDiskPressure', 'NodeHasSufficientPID', 'NodeReady']),
    ],
)  # fmt: skip
def test_a_changed_condition_is_an_event(before, now, reasons):
    assert list(transitions(listed(before), listed(now))) == reasons


class Api:
    """One Node object."""

    def __init__(self) -> None:
        self.node = None

    async def create(self, resource, obj):
        if self.node is not None:
            raise AlreadyExists({'message': 'nodes "n" already exists', 'code': 409, 'reason': 'AlreadyExists'})
        self.node = copy.deepcopy(obj)
        return self.node

    async def get(self, resource, name):
        return self.node

    async def patch(self, resource, name, change, **_):
        self.node = {**self.node, 'status': {**self.node['status'], **copy.deepcopy(change.get('status') or {})}}
        return self.node


@pytest.fixture
def node(env, tmp_path):
    """Runs an agent's status loop until it has reported; returns the events of that life."""
    api = Api()

    async def live(*, ready=True):
        config = NodeConfig(name='n', kubeconfig='/dev/null', data_dir=tmp_path, listen='127.0.0.1:0')
        pool, said = AddressPool(), []
        if ready:
            pool.set_cidr('127.64.9.0/24')
        keeper = NodeKeeper(config, api, env, pool, describe(config, env))
        keeper.said = lambda kind, reason, text: said.append((kind, reason, text))
        task = start_detached('status', keeper.run_status())
        async with asyncio.timeout(10):
            await keeper.registered.wait()
        await stop(task)
        return said

    return SimpleNamespace(live=live, api=api)


async def test_an_agent_tells_of_its_start_and_of_what_changed_since_it_was_last_heard(node):
    first = await node.live(ready=False)
    assert [reason for _, reason, _ in first] == [
        'Starting', 'NodeHasSufficientMemory', 'NodeHasNoDiskPressure', 'NodeHasSufficientPID',
    ]  # fmt: skip
    assert first[0] == ('Normal', 'Starting', 'Starting kubelet.')
    assert ('Normal', 'NodeReady', 'Node n status is now: NodeReady') in await node.live()
    assert [reason for _, reason, _ in await node.live()] == ['Starting']


async def test_a_machine_that_was_started_anew_says_so(node):
    await node.live()
    info = node.api.node['status']['nodeInfo']
    new, info['bootID'] = info['bootID'], 'old'
    assert ('Warning', 'Rebooted', f'Node n has been rebooted, boot id: {new}') in await node.live()
