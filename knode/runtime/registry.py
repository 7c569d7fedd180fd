"""The drivers of a node, by RuntimeClass name. Adding one is its module and a line here."""

from __future__ import annotations

from kcore.env import Env
from knode.runtime.cgroups import Cgroups
from knode.runtime.driver import RuntimeDriver
from knode.runtime.process import ProcessDriver
from knode.runtime.simulated import SimulatedDriver


def make_drivers(env: Env, cgroup_root: str = '') -> dict[str, RuntimeDriver]:
    """cgroup_root: below which containers get control groups; empty: they get none."""
    cgroups = Cgroups.of_machine(env, cgroup_root) if cgroup_root else None
    drivers: list[RuntimeDriver] = [ProcessDriver(env, cgroups), SimulatedDriver(env)]
    return {d.name: d for d in drivers}
