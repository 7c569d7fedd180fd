"""The driver suite: what every runtime driver owes its pods, one body for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kcore.env import Env
from knode.errors import ShimError
from knode.runtime.driver import ContainerSpec, Handle, Limits, Record, RuntimeDriver, Sandbox
from knode.runtime.process import ProcessDriver
from knode.runtime.registry import features, make_drivers
from knode.runtime.shim.container import MARK
from knode.runtime.simulated import PREFIX, SimulatedDriver
from tests.knode.conftest import poll_until

COMMANDS = {
    'lasts': ('sleep', '1000'),
    'ends': ('sh', '-c', 'exit 3'),
    'stubborn': ('sh', '-c', 'trap "" TERM; echo deaf; while :; do sleep 0.05; done'),
    'broken': ('/no/such/program',),
}
"""Container name → what it does as a process; the script says the same for a simulated one."""
SCRIPT = {
    f'{PREFIX}run-for.ends': '0.01', f'{PREFIX}exit-code.ends': '3', f'{PREFIX}stop-for.stubborn': '1000',
    f'{PREFIX}start-error.broken': 'no such program', f'{PREFIX}memory': '1Mi',
}  # fmt: skip


class Subject:
    def __init__(self, driver: RuntimeDriver, root: Path) -> None:
        self.driver, self._root = driver, root
        self._changed = asyncio.Event()
        self.opened: list[Handle] = []

    async def open(self, uid: str = 'u1') -> Handle:
        directory = self._root / uid
        directory.mkdir(exist_ok=True)
        handle = await self.driver.open(Sandbox(uid, 'default', uid, str(directory), SCRIPT), self._changed.set)
        self.opened.append(handle)
        return handle

    async def start(self, handle: Handle, name: str, attempt: int = 0) -> Record:
        container_id = f'{self._root.name}-{handle.uid}-{name}-{attempt}'
        spec = ContainerSpec(
            container_id, name, attempt, COMMANDS[name], {'PATH': '/usr/bin:/bin', MARK: container_id},
            handle.directory, f'{handle.directory}/logs/{name}/{attempt}.log', meta={'image': 'x'},
        )  # fmt: skip
        record = await self.driver.start(handle, spec)
        if name == 'stubborn' and isinstance(self.driver, ProcessDriver):
            await poll_until(Path(record.log).exists)  # it is deaf from its first word on
        return record

    def record(self, handle: Handle, container_id: str) -> Record:
        return next(r for r in self.driver.observe(handle) if r.id == container_id)

    async def ended(self, handle: Handle, container_id: str) -> Record:
        """Woken by the driver's own notices: one that gives none fails here."""
        async with asyncio.timeout(20):
            while not self.record(handle, container_id).finished_ns:
                self._changed.clear()
                await self._changed.wait()
        return self.record(handle, container_id)


@pytest.fixture(params=[ProcessDriver, SimulatedDriver], ids=lambda d: d.name)
async def subject(request, tmp_path: Path) -> AsyncIterator[Subject]:
    driver = request.param(Env.real(seed=1))
    await driver.prepare()
    made = Subject(driver, tmp_path)
    yield made
    for handle in made.opened:
        await driver.remove(handle)
        driver.forget(handle)
    await driver.close()


async def test_a_container_runs_until_it_ends_by_itself(subject):
    handle = await subject.open()
    r = await subject.start(handle, 'ends')
    done = await subject.ended(handle, r.id)
    assert (done.exit_code, done.signal, done.reason, done.running) == (3, 0, 'Error', False)
    assert done.created_ns <= done.started_ns <= done.finished_ns
    assert done.meta['image'] == 'x'


async def test_one_that_cannot_start_is_a_record(subject):
    r = await subject.start(await subject.open(), 'broken')
    assert (r.reason, r.exit_code, r.started_ns, r.running) == ('StartError', 128, 0, False)
    assert 'no such' in r.message


async def test_stopping_asks_first_and_kills_after_the_grace(subject):
    handle = await subject.open()
    polite, stubborn = [await subject.start(handle, n) for n in ('lasts', 'stubborn')]
    await subject.driver.stop(handle, polite.id, grace_s=1000)
    await subject.driver.stop(handle, stubborn.id, grace_s=1000)
    assert (await subject.ended(handle, polite.id)).exit_code == 143
    assert subject.record(handle, stubborn.id).stopping
    await subject.driver.stop(handle, stubborn.id, grace_s=0.1)
    assert (await subject.ended(handle, stubborn.id)).exit_code == 137


async def test_killing_gives_a_reason(subject):
    handle = await subject.open()
    r = await subject.start(handle, 'stubborn')
    await subject.driver.kill(handle, r.id, 'OOMKilled')
    done = await subject.ended(handle, r.id)
    assert (done.exit_code, done.signal, done.meta['reason']) == (137, 9, 'OOMKilled')


async def test_what_runs_uses_something_and_what_does_not_uses_nothing(subject, eventually):
    handle = await subject.open()
    r = await subject.start(handle, 'lasts')
    # A process that is just becoming its program has no memory yet.
    used = await eventually(lambda: (s := subject.driver.stats(handle)[r.id]).rss_bytes > 0 and s)
    assert used.processes == 1
    assert used.cpu_ns >= 0
    assert subject.driver.memory_bytes(handle, r.id) > 0
    await subject.driver.kill(handle, r.id, 'Error')
    await subject.ended(handle, r.id)
    assert r.id not in subject.driver.stats(handle)


async def test_the_latest_two_attempts_are_remembered(subject):
    handle = await subject.open()
    for attempt in range(4):
        r = await subject.start(handle, 'ends', attempt)
        await subject.ended(handle, r.id)
    assert [r.attempt for r in subject.driver.observe(handle)] == [2, 3]


async def test_facts_of_the_agents_are_kept_with_the_record(subject):
    handle = await subject.open()
    r = await subject.start(handle, 'lasts')
    await subject.driver.annotate(handle, r.id, {'ready': True})
    assert subject.record(handle, r.id).meta == {**r.meta, 'ready': True}


async def test_a_living_sandbox_is_recovered_by_its_handle(subject):
    handle = await subject.open()
    r = await subject.start(handle, 'lasts')
    assert await subject.driver.recover(Handle.from_json(handle.to_json()), lambda: None)
    assert subject.record(handle, r.id).running


async def test_removal_ends_everything_and_leaves_the_records(subject):
    handle = await subject.open()
    r = await subject.start(handle, 'lasts')
    await subject.driver.remove(handle)
    assert not subject.driver.alive(handle)
    assert subject.record(handle, r.id).exit_code > 128
    with pytest.raises(ShimError):
        await subject.start(handle, 'lasts', 1)


async def test_a_new_sandbox_of_the_pod_shows_what_ran_in_the_old_one(subject):
    first = await subject.open()
    r = await subject.start(first, 'lasts')
    await subject.driver.remove(first)
    second = await subject.open()
    assert second != first
    assert subject.driver.alive(second)
    assert not subject.driver.alive(first)
    assert subject.record(second, r.id).finished_ns
    assert (await subject.start(second, 'lasts', 1)).running


async def test_pods_do_not_see_each_other(subject):
    one, two = await subject.open('u1'), await subject.open('u2')
    r = await subject.start(one, 'lasts')
    assert subject.driver.observe(two) == ()
    await subject.driver.remove(two)
    assert subject.record(one, r.id).running


async def test_a_running_container_can_be_held_to_other_limits(subject):
    handle = await subject.open()
    record = await subject.start(handle, 'lasts')
    await subject.driver.resize(handle, record.id, Limits(cpu_milli=100, memory_bytes=1 << 30))
    assert subject.record(handle, record.id).running


async def test_a_node_tells_what_its_handlers_can_do(env):
    drivers = make_drivers(env)
    for driver in drivers.values():
        await driver.prepare()
    told = features(drivers)
    can = drivers['process'].capabilities
    assert {h['name']: h['features']['recursiveReadOnlyMounts'] for h in told['runtimeHandlers']} == {
        '': can.isolates_fs, 'process': can.isolates_fs, 'simulated': False,
    }  # fmt: skip
    assert told['features'] == {'supplementalGroupsPolicy': can.change_user}
    for driver in drivers.values():
        await driver.close()
