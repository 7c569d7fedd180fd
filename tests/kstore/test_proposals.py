"""Admission: ordinary writes leave room for leases and operators."""

from __future__ import annotations

from typing import Any

import pytest

from kcore.env import Env
from kstore.errors import Overloaded
from kstore.proposals import INFLIGHT_MAX, ORDINARY_INFLIGHT_MAX, Proposals
from kstore.wire import Op


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
