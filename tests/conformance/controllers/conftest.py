"""What conformance tests of controllers share: the real API server, a clock of the test's, a pretended node agent."""
# ruff: noqa: F401, F811 — fixtures are imported and are parameters

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from kcore.env import Env
from kcore.meta.gvk import PODS
from kcore.meta.objects import deleting, name_of
from tests.kcontrol.conftest import admin, agent, background, controllers, exists, kapi, pki, settings, until

Obj = dict


@pytest.fixture
def config_of(kapi):
    """User name → how to reach the API server."""
    return kapi


@pytest.fixture
def field(admin):
    """Ask whether a status field has a value."""

    def ask(resource, path: str, wanted: object, name: str = 'web'):
        async def same() -> bool:
            found = await admin.get(resource, name, 'default')
            for part in path.split('.'):
                found = (found or {}).get(part)
            return found == wanted

        return same

    return ask


@pytest.fixture
def count(admin):
    def ask(resource, wanted: int):
        async def same() -> bool:
            found = (await admin.list(resource, 'default')).items
            return sum(not deleting(o) for o in found) == wanted

        return same

    return ask


class Shifted:
    """A clock that runs as the machine's and can be put forward; timers that run already stay with the machine."""

    def __init__(self, real) -> None:
        self._real, self.ahead_s = real, 0.0

    def monotonic(self) -> float:
        return self._real.monotonic() + self.ahead_s

    def wall(self) -> datetime:
        return self._real.wall() + timedelta(seconds=self.ahead_s)


@pytest.fixture
def clock() -> Shifted:
    return Shifted(Env.real(1).clock)


@pytest.fixture
def env(clock) -> Env:
    return replace(Env.real(1), clock=clock)


@pytest.fixture
def pods(admin):
    """The pods of the workloads that are not going away, by name."""

    async def ask(**labels: str) -> list[Obj]:
        selector = ','.join(f'{k}={v}' for k, v in ({'app': 'web'} | labels).items())
        found = (await admin.list(PODS, 'default', label_selector=selector)).items
        return sorted((p for p in found if not deleting(p)), key=name_of)

    return ask
