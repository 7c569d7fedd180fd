"""The drivers of a node, by RuntimeClass name. Adding one is its module and a line here."""

from __future__ import annotations

from collections.abc import Callable

from kcore.env import Env
from knode.errors import ShimError
from knode.runtime.cgroups import Cgroups
from knode.runtime.driver import Handle, RuntimeDriver, Sandbox
from knode.runtime.process import ProcessDriver
from knode.runtime.simulated import SimulatedDriver


class _Unsupported(SimulatedDriver):
    """Stands for a driver that this node does not have: its pods wait, and their events say for what."""

    def __init__(self, env: Env, name: str) -> None:
        super().__init__(env)
        self.name = name

    async def open(self, sandbox: Sandbox, changed: Callable[[], None]) -> Handle:
        raise ShimError(f'no runtime for "{self.name}" is configured')


def unsupported(env: Env, name: str) -> RuntimeDriver:
    return _Unsupported(env, name)


def make_drivers(env: Env, cgroup_root: str = '') -> dict[str, RuntimeDriver]:
    """cgroup_root: below which containers get control groups; empty: they get none."""
    cgroups = Cgroups.of_machine(env, cgroup_root) if cgroup_root else None
    drivers: list[RuntimeDriver] = [ProcessDriver(env, cgroups), SimulatedDriver(env)]
    return {d.name: d for d in drivers}
