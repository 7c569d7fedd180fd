"""The drivers of a node, by the handler that a RuntimeClass names. Adding one is its module and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcore.env import Env
from knode.runtime.cgroups import Cgroups
from knode.runtime.driver import RuntimeDriver
from knode.runtime.process import ProcessDriver
from knode.runtime.simulated import SimulatedDriver

DEFAULT = 'process'
"""Of pods without a RuntimeClass."""


def make_drivers(env: Env, cgroup_root: str = '') -> dict[str, RuntimeDriver]:
    """cgroup_root: below which containers get control groups; empty: they get none."""
    cgroups = Cgroups.of_machine(env, cgroup_root) if cgroup_root else None
    drivers: list[RuntimeDriver] = [ProcessDriver(env, cgroups), SimulatedDriver(env)]
    return {d.name: d for d in drivers}


def features(drivers: Mapping[str, RuntimeDriver]) -> dict[str, Any]:
    """What the node's status says of its handlers, the nameless one first, and of itself."""
    handlers = {'': drivers[DEFAULT], **drivers}
    return {
        'runtimeHandlers': [
            {'name': n, 'features': {'recursiveReadOnlyMounts': d.capabilities.isolates_fs, 'userNamespaces': False}}
            for n, d in handlers.items()
        ],
        # No image brings groups of its own; who cannot change groups cannot shed those of the agent either.
        'features': {'supplementalGroupsPolicy': drivers[DEFAULT].capabilities.change_user},
    }
