"""The process driver and its shim on real processes."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from knode.errors import ShimError
from knode.runtime.driver import Handle, Streams
from knode.runtime.process import ProcessDriver
from knode.runtime.shim.state import STATE_BYTES_MAX, latest


async def test_exit_code_and_output_of_a_container_are_kept(rig, eventually):
    handle = await rig.open()
    r = await rig.start(handle, 'sh', '-c', 'echo out; echo err >&2; printf tail; exit 3')
    done = await eventually(lambda: (x := rig.record(handle, r.id)).finished_ns and x)
    assert (done.exit_code, done.reason, done.signal) == (3, 'Error', 0)
    lines = await eventually(lambda: len(t := Path(r.log).read_text().splitlines()) == 3 and t)
    assert sorted(line.split(' ', 1)[1] for line in lines) == ['stderr F err', 'stdout F out', 'stdout P tail']


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (('nosuch',), 'exec: "nosuch": executable file not found in $PATH'),
        (('/tmp',), 'exec: "/tmp": is a directory'),
        (('/etc/passwd',), 'exec: "/etc/passwd": permission denied'),
        (('/no/such',), 'exec: "/no/such": stat /no/such: no such file or directory'),
        (('true', 'x' * 3_000_000), 'argument list too long'),
    ],
)
async def test_a_container_that_cannot_start_says_why(rig, argv, message):
    r = await rig.start(await rig.open(), *argv)
    assert (r.reason, r.exit_code, r.pid) == ('StartError', 128, 0)
    assert message in r.message


async def test_a_missing_working_directory_is_named(rig):
    r = await rig.start(await rig.open(), 'true', cwd='/no/such')
    assert r.message.endswith('chdir to cwd ("/no/such") failed: no such file or directory')


async def test_stop_terminates_the_group_and_kills_it_after_the_grace(rig, eventually):
    handle = await rig.open()
    stubborn = await rig.start(handle, 'sh', '-c', 'trap "" TERM; while :; do sleep 0.05; done', name='a')
    polite = await rig.start(handle, 'sleep', '1000', name='b')
    for r in (stubborn, polite):
        await rig.driver.stop(handle, r.id, grace_s=0.3)
    await eventually(lambda: all(rig.record(handle, r.id).finished_ns for r in (stubborn, polite)))
    assert rig.record(handle, polite.id).exit_code == 128 + signal.SIGTERM
    assert rig.record(handle, stubborn.id).exit_code == 128 + signal.SIGKILL


async def test_a_killed_container_says_what_for(rig, eventually):
    handle = await rig.open()
    r = await rig.start(handle, 'sh', '-c', 'trap "" TERM; sleep 1000 & wait')
    await rig.driver.kill(handle, r.id, 'OOMKilled')
    done = await eventually(lambda: (x := rig.record(handle, r.id)).finished_ns and x)
    assert (done.exit_code, done.meta['reason']) == (137, 'OOMKilled')


async def test_what_a_container_left_behind_ends_with_it(rig, eventually, tmp_path):
    handle = await rig.open()
    # A double-forked daemon in a session of its own: neither child nor group leads to it.
    r = await rig.start(
        handle, 'sh', '-c', '(setsid sh -c "echo $$ > daemon.pid; exec sleep 1000" &) ; sleep 0.2; exit 0'
    )
    await eventually(lambda: rig.record(handle, r.id).finished_ns)
    await eventually(lambda: not marked(r.id))


def marked(container_id: str) -> list[str]:
    found = []
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                text = Path(f'/proc/{name}/environ').read_bytes()
            except OSError:
                continue
            if f'KUBELING_CONTAINER={container_id}\0'.encode() in text:
                found.append(name)
    return found


async def test_a_new_agent_adopts_by_handle_and_learns_exit_codes(rig, env, eventually):
    handle = await rig.open()
    lives = await rig.start(handle, 'sleep', '1000', name='a')
    ends = await rig.start(handle, 'sh', '-c', 'sleep 0.1; exit 5', name='b')
    await rig.driver.close()
    await eventually(lambda: not Path(f'/proc/{ends.pid}').exists())
    later = ProcessDriver(env)
    assert await later.recover(Handle.from_json(handle.to_json()), lambda: None)
    codes = {r.name: (r.running, r.exit_code) for r in later.observe(handle)}
    assert codes == {'a': (True, 0), 'b': (False, 5)}
    assert {r.pid for r in later.observe(handle)} == {lives.pid, ends.pid}
    await later.remove(handle)
    await later.close()


async def test_containers_die_with_their_shim_and_the_records_say_so(rig, eventually):
    handle = await rig.open()
    r = await rig.start(handle, 'sh', '-c', 'sleep 1000 & wait')
    os.kill(handle.pid, signal.SIGKILL)
    await eventually(lambda: not rig.driver.alive(handle))
    assert not await rig.driver.recover(handle, rig.changed)
    assert rig.record(handle, r.id).exit_code == 137
    await eventually(lambda: not marked(r.id))
    again = await rig.open()
    assert again.pid != handle.pid
    assert [x.exit_code for x in rig.driver.observe(again)] == [137]


async def test_a_shim_whose_directory_is_removed_ends_with_all_it_runs(rig, eventually):
    handle = await rig.open()
    r = await rig.start(handle, 'sh', '-c', 'setsid sleep 1000 & wait')
    await eventually(lambda: len(marked(r.id)) == 2)
    shutil.rmtree(handle.directory)
    await eventually(lambda: not rig.driver.alive(handle) and not marked(r.id))
    await eventually(lambda: not Path(f'/proc/{handle.pid}').exists())
    again = await rig.open()
    assert [x.id for x in rig.driver.observe(again)] == [r.id], 'what was known of it is not lost'


async def test_records_that_cannot_be_written_end_nothing_and_are_written_later(rig, eventually):
    handle = await rig.open()
    before = resource.prlimit(handle.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(handle.pid, resource.RLIMIT_FSIZE, (0, before[1]))  # as a full disk: no file can grow
    r = await rig.start(handle, 'sleep', '1000')
    assert r.running
    assert not saved(handle)
    resource.prlimit(handle.pid, resource.RLIMIT_FSIZE, before)
    await eventually(lambda: saved(handle) == {r.id: 0})


async def test_a_book_that_grew_long_is_begun_anew(rig, eventually):
    handle = await rig.open()
    r = await rig.start(handle, 'sleep', '1000')
    book = Path(handle.directory, 'shim.json')
    sizes = []
    for _ in range(STATE_BYTES_MAX // 8000 + 1):
        await rig.driver.annotate(handle, r.id, {'fact': 'x' * 8000})
        sizes.append(book.stat().st_size)
    assert max(sizes) <= STATE_BYTES_MAX
    assert any(later < before for before, later in pairwise(sizes))
    assert saved(handle) == {r.id: 0}
    await rig.driver.annotate(handle, r.id, {'fact': 'y'})
    assert latest(book.read_bytes())['containers'][0]['meta']['fact'] == 'y', 'it goes on in the new one'


def test_of_a_book_the_last_whole_state_counts():
    whole, torn = b'{"containers": []}\n{"containers": [1]}\n', b'{"containers": [1, 2'
    assert latest(whole + torn) == {'containers': [1]}
    with pytest.raises(ValueError, match='no whole state'):
        latest(torn)


def saved(handle):
    """{container id: exit code} in the shim's book."""
    state = latest(Path(handle.directory, 'shim.json').read_bytes())
    return {c['id']: c['exit_code'] for c in state['containers']}


async def test_a_container_inherits_no_descriptor_of_its_shim(rig):
    handle = await rig.open()
    r = await rig.start(handle, 'sleep', '1000')
    assert sorted(os.listdir(f'/proc/{r.pid}/fd')) == ['0', '1', '2']


async def test_a_container_starts_with_no_signal_ignored_or_held_back(rig):
    handle = await rig.open()
    r = await rig.start(handle, 'sleep', '1000')
    status = dict(line.split(':\t', 1) for line in Path(f'/proc/{r.pid}/status').read_text().splitlines())
    assert (int(status['SigBlk'], 16), int(status['SigIgn'], 16)) == (0, 0)


async def test_a_handle_of_another_process_is_not_adopted(rig, eventually):
    handle = await rig.open()
    await eventually(Path(handle.directory, 'shim.json').exists)
    stranger = Handle(handle.driver, handle.uid, handle.directory, handle.pid, handle.start_ticks + 1)
    assert not await rig.driver.recover(stranger, rig.changed)


async def test_exec_returns_the_exit_code_and_uses_the_given_streams(rig):
    handle = await rig.open()
    r = await rig.start(handle, 'sleep', '1000')
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    spec = {'argv': ['sh', '-c', 'echo hi; exit 7'], 'env': {'PATH': os.environ['PATH']}, 'cwd': '/'}
    try:
        assert await rig.driver.exec(handle, r.id, spec, Streams(null, write, write)) == 7
        assert os.read(read, 100) == b'hi\n'
        with pytest.raises(ShimError, match='executable file not found'):
            await rig.driver.exec(handle, r.id, spec | {'argv': ['nosuch']}, Streams(null, write, write))
    finally:
        for fd in (read, write, null):
            os.close(fd)


async def test_a_cancelled_exec_is_killed(rig, eventually):
    handle = await rig.open()
    r = await rig.start(handle, 'sleep', '1000')
    null = os.open(os.devnull, os.O_RDWR)
    spec = {'argv': ['sleep', '1001'], 'env': {'PATH': os.environ['PATH']}, 'cwd': '/'}
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await rig.driver.exec(handle, r.id, spec, Streams(null, null, null))
    finally:
        os.close(null)
    await eventually(lambda: marked(r.id) == [str(r.pid)])


async def test_a_dead_zygote_is_replaced(rig, eventually):
    first = await rig.open('u1')
    zygote = rig.driver._zygote._process.pid
    os.kill(zygote, signal.SIGKILL)
    second = await rig.open('u2')
    assert rig.driver.alive(first)
    assert rig.driver.alive(second)


async def test_an_exec_session_ends_with_its_container(rig, eventually):
    handle = await rig.open()
    r = await rig.start(handle, 'sleep', '1000')
    await rig.start(handle, 'sleep', '1000', name='other')
    null = os.open(os.devnull, os.O_RDWR)
    spec = {'argv': ['sleep', '1001'], 'env': {'PATH': os.environ['PATH']}, 'cwd': '/'}
    session = asyncio.create_task(rig.driver.exec(handle, r.id, spec, Streams(null, null, null)))
    await eventually(lambda: len(marked(r.id)) == 2)
    await rig.driver.stop(handle, r.id, grace_s=5.0)
    async with asyncio.timeout(10):
        assert await session == 137
    os.close(null)
