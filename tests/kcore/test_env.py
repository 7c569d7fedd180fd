"""The real disk, network and processes."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

import pytest

from kcore import env
from kcore.env import Env

ENV = Env.real()


def test_replace_is_whole_or_nothing_and_leaves_no_draft(tmp_path: Path) -> None:
    target = tmp_path / 'f'
    ENV.disk.replace(target, b'old')
    ENV.disk.replace(target, b'new')
    assert target.read_bytes() == b'new'
    assert os.listdir(tmp_path) == ['f']


def test_a_new_name_is_on_the_disk_before_anybody_relies_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(env, '_sync_directory', synced.append)
    ENV.disk.replace(tmp_path / 'f', b'x')
    ENV.disk.rename(tmp_path / 'f', tmp_path / 'g')
    ENV.disk.open_append(tmp_path / 'log').close()
    ENV.disk.open_append(tmp_path / 'log').close()
    assert synced == [tmp_path] * 3
    ENV.disk.mkdir(tmp_path / 'a' / 'b')
    assert synced[3:] == [tmp_path, tmp_path / 'a']


def test_an_append_file_grows_survives_reopening_and_can_be_cut(tmp_path: Path) -> None:
    file = ENV.disk.open_append(tmp_path / 'log', preallocate=4096)
    file.append(b'hello ')
    file.append(b'world')
    file.sync()
    file.close()
    again = ENV.disk.open_append(tmp_path / 'log')
    assert again.size == 11
    again.truncate(5)
    again.append(b'!')
    again.close()
    assert ENV.disk.read(tmp_path / 'log') == b'hello!'


async def test_a_quick_disk_is_asked_at_once_until_it_is_slow_for_the_first_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    took = 0.001
    clock = iter(range(1 << 20))
    monkeypatch.setattr(env.time, 'perf_counter', lambda: (next(clock) + 1) // 2 * took)  # each call takes `took`
    disk = env.RealDisk()
    loop_thread = threading.get_ident()
    threads = [await disk.sync_soon(threading.get_ident) for _ in range(env.QUICK_CALLS + 1)]
    assert loop_thread not in threads[:-1]
    assert threads[-1] == loop_thread
    took = 10.0
    assert await disk.sync_soon(threading.get_ident) == loop_thread  # nobody knew yet
    assert await disk.sync_soon(threading.get_ident) != loop_thread


async def test_a_quick_disk_may_take_long_once_in_a_while_but_not_twice_in_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    took, now = 0.001, 0.0

    def perf_counter() -> float:
        nonlocal now
        now += took / 2
        return now

    monkeypatch.setattr(env.time, 'perf_counter', perf_counter)
    disk = env.RealDisk()
    loop_thread = threading.get_ident()

    async def threads(calls: int, each_s: float) -> set[bool]:
        nonlocal took
        took = each_s
        return {await disk.sync_soon(threading.get_ident) == loop_thread for _ in range(calls)}

    assert await threads(env.QUICK_CALLS, 0.001) == {False}
    for _ in range(5):
        assert await threads(env.SLOW_CALLS, 0.001) == {True}
        assert await threads(1, 0.03) == {True}
    assert await threads(1, 0.03) == {True}  # nobody knew yet
    assert await threads(env.SLOW_CALLS, 0.001) == {False}
    assert await threads(2 * env.SLOW_CALLS, 0.001) == {True}


async def test_a_disk_is_not_slow_because_the_processor_was_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    now = waited = 0.0
    took, of_it_waited = 0.001, 0.0

    def perf_counter() -> float:
        nonlocal now, waited
        now += took
        waited += of_it_waited / 2
        return now

    monkeypatch.setattr(env.time, 'perf_counter', perf_counter)
    monkeypatch.setattr(env, '_waited_s', lambda: waited)
    disk = env.RealDisk()
    for _ in range(env.QUICK_CALLS):
        await disk.sync_soon(threading.get_ident)
    assert disk.quick
    took, of_it_waited = 10.0, 9.999
    for _ in range(10 * env.SLOW_CALLS):
        disk.sync_now(threading.get_ident)
    assert disk.quick
    of_it_waited = 9.9
    disk.sync_now(threading.get_ident)
    assert not disk.quick


def test_time_without_a_processor_is_counted_where_the_system_counts_it() -> None:
    before = env._waited_s()
    assert before >= 0
    assert env._waited_s() - before < 1


def test_preallocation_keeps_the_size(tmp_path: Path) -> None:
    file = ENV.disk.open_append(tmp_path / 'log', preallocate=1 << 20)
    assert file.size == 0
    assert (tmp_path / 'log').stat().st_size == 0
    file.close()


def test_a_file_with_a_reservation_holds_zeros_ahead_of_its_data_until_it_is_closed(tmp_path: Path) -> None:
    path, reserved = tmp_path / 'log', 2 * env.AHEAD_BYTES
    file = ENV.disk.open_append(path, preallocate=reserved)
    written, sizes = b'', set()
    while len(written) < reserved + 1000:
        data = b'%d' % len(written) * 100
        file.append(data)
        file.sync()
        written += data
        found = path.read_bytes()
        sizes.add(len(found))
        assert file.size == len(written)
        assert found.rstrip(b'\0') == written
    assert len(sizes) < 10, 'most writes changed nothing but content'
    assert len(path.read_bytes()) == len(written), 'nothing is written ahead beyond the reservation'
    file.close()
    assert path.read_bytes() == written
    again = ENV.disk.open_append(path, preallocate=2 * len(written))
    again.append(b'more')
    assert path.stat().st_size > len(written) + 4
    again.truncate(len(written) + 2)
    again.append(b'!')
    again.close()
    assert path.read_bytes() == written + b'mo!'


def test_a_missing_directory_lists_as_empty_and_is_made_with_its_parents(tmp_path: Path) -> None:
    deep = tmp_path / 'a' / 'b'
    assert ENV.disk.listdir(deep) == []
    ENV.disk.mkdir(deep)
    ENV.disk.mkdir(deep)
    assert deep.is_dir()


async def test_offload_runs_elsewhere_and_carries_the_error_back() -> None:
    def fail() -> None:
        raise OSError('no')

    assert await ENV.disk.offload(lambda: 7) == 7
    with pytest.raises(OSError, match='no'):
        await ENV.disk.offload(fail)


async def test_a_taken_port_is_an_error_with_the_address_in_it() -> None:
    server = await ENV.net.listen(asyncio.Protocol, '127.0.0.1', 0)
    with pytest.raises(OSError, match=str(server.address[1])):
        await ENV.net.listen(asyncio.Protocol, '127.0.0.1', server.address[1])
    server.close()


async def test_a_child_reports_its_exit_code_and_its_signal() -> None:
    child = await ENV.processes.spawn([sys.executable, '-c', 'raise SystemExit(3)'])
    assert await child.wait() == 3
    sleeper = await ENV.processes.spawn([sys.executable, '-c', 'import time; time.sleep(60)'])
    sleeper.signal(9)
    assert await sleeper.wait() == -9


async def test_a_missing_binary_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        await ENV.processes.spawn(['/nowhere/at/all'])
