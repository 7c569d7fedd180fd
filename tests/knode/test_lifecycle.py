"""How much time containers are given to end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from knode.pods.lifecycle import Lifecycle
from knode.pods.metrics import KubeletMetrics
from knode.pods.model import Stop

START = datetime(2026, 1, 1, tzinfo=UTC)


class Worker:
    """A pod whose time the test sets by hand; `graces` are what the driver was told."""

    def __init__(self, make_pod, *, ending: bool) -> None:
        self.ending, self.now, self.graces = ending, START, []
        self.pod = make_pod()
        self.checkpoint = SimpleNamespace(handle='h')
        self.driver = SimpleNamespace(stop=self._stop)
        clock = SimpleNamespace(wall=lambda: self.now, monotonic=lambda: 0.0)
        host = SimpleNamespace(metrics=KubeletMetrics(), env=SimpleNamespace(clock=clock), emit=lambda *_, **__: None)
        self.lifecycle = Lifecycle(host, self)

    async def _stop(self, handle, container_id, *, grace_s):
        self.graces.append((container_id, grace_s))

    async def stop(self, record, grace_s, after_s=0.0):
        self.now += timedelta(seconds=after_s)
        async with asyncio.TaskGroup() as self.lifecycle.group:
            self.lifecycle.stop(Stop(record, grace_s, 'bye'))


async def test_containers_of_a_pod_that_ends_share_one_grace(make_pod, make_record):
    worker = Worker(make_pod, ending=True)
    for name, after_s in (('main', 0), ('side2', 7), ('side1', 2), ('side0', 5)):
        await worker.stop(make_record(name), 10.0, after_s)
    assert worker.graces == [('main0', 10.0), ('side20', 3.0), ('side10', 2.0), ('side00', 2.0)]


@pytest.mark.parametrize(('grace_s', 'told'), [(30.0, [30.0]), (2.0, [30.0, 2.0])])
async def test_a_repeated_stop_can_only_shorten_the_grace(make_pod, make_record, grace_s, told):
    worker = Worker(make_pod, ending=True)
    await worker.stop(make_record(), 30.0)
    await worker.stop(make_record(), grace_s)
    assert [g for _, g in worker.graces] == told


async def test_a_condemned_container_of_a_pod_that_goes_on_has_a_grace_of_its_own(make_pod, make_record):
    worker = Worker(make_pod, ending=False)
    await worker.stop(make_record('a'), 10.0)
    await worker.stop(make_record('b'), 10.0, after_s=8)
    assert worker.graces == [('a0', 10.0), ('b0', 10.0)]
