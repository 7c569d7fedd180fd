"""How many descriptors the proxy asks for, and what it makes of them."""

from __future__ import annotations

import resource
from typing import Any

import pytest

from kcore.env import Env
from knode.proxy import work
from knode.proxy.work import Work

INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ('limits', 'raised', 'room'),
    [
        ((1024, 4096), (4096, 4096), 4096),
        ((1024, INFINITY), (65_536, INFINITY), 65_536),
        ((1024, 1024), None, 1024),
        ((100_000, 200_000), None, 100_000),
        ((INFINITY, INFINITY), None, 65_536),
    ],
)
async def test_the_soft_limit_is_raised_as_far_as_the_hard_one_allows(monkeypatch, limits, raised, room):
    given: list[Any] = []
    monkeypatch.setattr(resource, 'getrlimit', lambda kind: limits)
    monkeypatch.setattr(resource, 'setrlimit', lambda kind, new: given.append(new))
    made = Work(Env.real().clock, lambda: 24)
    assert given == ([raised] if raised else [])
    assert 2 * made.connections_max + made.flows_max + made.ports_max <= room // 2
    assert made.connections_max == min(work.CONNECTIONS_MAX, room // 8)
