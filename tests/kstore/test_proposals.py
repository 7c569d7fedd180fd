"""Admission: ordinary writes leave room for leases and operators."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kcore.env import Env
from kcore.sim import World
from kstore.errors import NoLeader, Overloaded
from kstore.proposals import INFLIGHT_MAX, ORDINARY_INFLIGHT_MAX, SWEEP_S, Proposals
from kstore.wire import Op, split_result


class NoLeaderNode:
    is_leader = False
    leader_id = 0


class NoPeers:
    answers: list[Any]


async def test_leases_are_admitted_when_ordinary_writes_are_refused(env: Env):
    proposals = Proposals(NoLeaderNode(), NoPeers(), env, 1, 5.0)  # type: ignore[arg-type]
    proposals.inflight = ORDINARY_INFLIGHT_MAX
    with pytest.raises(Overloaded, match=str(ORDINARY_INFLIGHT_MAX)):
        proposals.submit(Op.WRITE, b'', lambda _: None)
    proposals.submit(Op.KEEPALIVE, 1, lambda _: None)
    proposals.submit(Op.ADMIN, ['members'], lambda _: None)
    proposals.inflight = INFLIGHT_MAX
    with pytest.raises(Overloaded, match=str(INFLIGHT_MAX)):
        proposals.submit(Op.KEEPALIVE, 1, lambda _: None)


def test_nothing_is_swept_while_nothing_waits():
    world = World(1)
    sweeps: list[int] = []

    async def main() -> None:
        proposals = Proposals(NoLeaderNode(), NoPeers(), world.host('10.0.0.1').env, 1, 5.0)  # type: ignore[arg-type]
        sweep = proposals.sweep
        proposals.sweep = lambda: (sweeps.append(len(answers)), sweep())[1]  # type: ignore[method-assign]
        answers: list[bytes] = []
        running = asyncio.create_task(proposals.run())
        await asyncio.sleep(60.0)
        assert not sweeps
        proposals.submit(Op.KEEPALIVE, 1, answers.append)
        await asyncio.sleep(5.0 + 2 * SWEEP_S)
        assert split_result(answers[0])[0] == NoLeader.code, 'given up at its deadline'
        swept = len(sweeps)
        assert swept > 1
        await asyncio.sleep(60.0)
        assert len(sweeps) <= swept + 1, 'at rest again'
        running.cancel()

    world.run(main())
