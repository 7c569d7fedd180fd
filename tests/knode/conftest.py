"""Pods, records and views for tables; a process driver that must leave nothing behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from kcore.env import Env
from knode.pods.model import View
from knode.runtime.driver import NS, ContainerSpec, Handle, Record, Sandbox
from knode.runtime.process import ProcessDriver
from knode.runtime.shim.container import MARK

NOW = 1_800_000_000.0


@pytest.fixture
def env() -> Env:
    return Env.real(seed=1)


@pytest.fixture
def make_pod() -> Callable[..., dict[str, Any]]:
    def make(**spec: Any) -> dict[str, Any]:
        containers = spec.pop('containers', [{'name': 'c', 'image': 'busybox'}])
        meta = {'name': 'p', 'namespace': 'default', 'uid': 'u1', 'labels': {'app': 'x'}}
        return {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': meta, 'spec': {'containers': containers, **spec}}

    return make


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """`running`, `ended=code`; times relative to NOW: `age` since the end, `ran` seconds long."""

    def make(name: str = 'c', attempt: int = 0, **given: Any) -> Record:
        age, ran = given.pop('age', 0.0), given.pop('ran', 1.0)
        code = given.pop('ended', None)
        meta = {'sandbox': 's', 'backoff_s': given.pop('backoff_s', 0.0), 'image': 'busybox'} | given.pop('meta', {})
        end = int((NOW - age) * NS) if code is not None else 0
        start = end - int(ran * NS) if end else int((NOW - ran) * NS)
        return Record(
            f'{name}{attempt}', name, attempt, pid=1, started_ns=start, finished_ns=end, exit_code=code or 0,
            reason='' if code is None else 'Error' if code else 'Completed', meta=meta, **given,
        )  # fmt: skip

    return make


@pytest.fixture
def make_view() -> Callable[..., View]:
    def make(pod: dict[str, Any], *records: Record, **given: Any) -> View:
        by_name: dict[str, list[Record]] = {}
        for r in records:
            by_name.setdefault(r.name, []).append(r)
        return View(pod, by_name, given.pop('now', NOW), given.pop('sandbox', 's'), **given)

    return make


class Rig:
    """One sandbox of the process driver."""

    def __init__(self, env: Env, driver: ProcessDriver, root: Path) -> None:
        self.env, self.driver, self.root = env, driver, root
        self.serial = 0
        self.changes = 0

    def changed(self) -> None:
        self.changes += 1

    async def open(self, uid: str = 'u1') -> Handle:
        directory = self.root / uid
        directory.mkdir(parents=True, exist_ok=True)
        return await self.driver.open(Sandbox(uid, 'default', 'p', str(directory)), self.changed)

    async def start(self, handle: Handle, *argv: str, **more: Any) -> Record:
        self.serial += 1
        number = self.serial
        # Unique on the machine, as in production: leftovers are found by this mark, also by a test run beside this one.
        container_id = f'{handle.uid}-{number}-{os.getpid()}'
        spec = ContainerSpec(
            id=container_id, name=more.pop('name', 'c'), attempt=number, argv=argv,
            env={'PATH': os.environ['PATH'], MARK: container_id}, cwd=more.pop('cwd', handle.directory),
            log=f'{handle.directory}/logs/{number}.log', **more,
        )  # fmt: skip
        return await self.driver.start(handle, spec)

    def record(self, handle: Handle, container_id: str) -> Record:
        return next(r for r in self.driver.observe(handle) if r.id == container_id)


@pytest.fixture
async def rig(env: Env, tmp_path: Path) -> AsyncIterator[Rig]:
    """At the end no process may carry a mark of this test's containers; the last of a shim to go is its directory."""
    driver = ProcessDriver(env)
    made = Rig(env, driver, tmp_path)
    yield made
    for pod in list(driver._pods.values()):
        await driver.remove(pod.handle)
    await driver.close()
    await poll_until(lambda: not processes_below(tmp_path))


def processes_below(root: Path) -> list[int]:
    """Living processes whose working directory or environment points into `root`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            where = [process.cwd(), *process.environ().values()]
        except psutil.Error:
            continue
        if any(str(root) in text for text in where) and process.pid != os.getpid():
            found.append(process.pid)
    return found


@pytest.fixture
def remaining() -> Callable[[Path], list[int]]:
    return processes_below


async def poll_until(condition: Callable[[], Any], within_s: float = 10.0) -> Any:
    """Await a condition of the outside world that sends no event (a process table, a file)."""
    import asyncio

    async with asyncio.timeout(within_s):
        while not (found := condition()):
            await asyncio.sleep(0.01)
    return found


@pytest.fixture
def eventually() -> Callable[..., Any]:
    return poll_until
