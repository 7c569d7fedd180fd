"""Many conformance tests in the time of the slowest: scenarios that run at once on one cluster.

A scenario is a coroutine in a shared namespace that uses its own name for all it makes. All of a module run when the
first is asked for; a test then looks at how its own went.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from tests.conformance.pods import World, open_world
from tests.e2e.conftest import LocalCluster

Scenario = Callable[[World, str], Awaitable[Any]]
Ends = Mapping[Scenario, BaseException | None]
AT_ONCE = 20


class Scenarios:
    def __init__(self) -> None:
        self._by_name: dict[str, Scenario] = {}
        self._as_root: set[str] = set()

    def add(self, *names: str, root: bool = False) -> Callable[[Scenario], Scenario]:
        """names: of upstream's tests that this scenario re-expresses. root: containers run as other users."""

        def add(run: Scenario) -> Scenario:
            self._by_name.update(dict.fromkeys(names, run))
            if root:
                self._as_root.update(names)
            return run

        return add

    def rows(self) -> list[Any]:
        root = {n: [pytest.mark.as_root] for n in self._as_root}
        return [pytest.param(n, id=n, marks=[pytest.mark.conformance(n), *root.get(n, ())]) for n in self._by_name]

    def run(self, cluster: LocalCluster) -> Ends:
        return asyncio.run(self._run(cluster))

    async def _run(self, cluster: LocalCluster) -> Ends:
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(world: World, run: Scenario, name: str) -> None:
            async with limit:
                await run(world, name)

        able = (run for name, run in self._by_name.items() if self._can(name))
        async with open_world(cluster) as world:
            runs = list(dict.fromkeys(able))
            ends = await asyncio.gather(*(one(world, r, f's{n}') for n, r in enumerate(runs)), return_exceptions=True)
            return dict(zip(runs, ends, strict=True))

    def _can(self, name: str) -> bool:
        return name not in self._as_root or os.geteuid() == 0

    def judge(self, ends: Ends, name: str) -> None:
        if (error := ends[self._by_name[name]]) is not None:
            raise AssertionError(f'{type(error).__name__}: {error}') from error
