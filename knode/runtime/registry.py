"""The drivers of a node, by RuntimeClass name. Adding one is its module and a line here."""

from __future__ import annotations

from kcore.env import Env
from knode.runtime.driver import RuntimeDriver
from knode.runtime.process import ProcessDriver
from knode.runtime.simulated import SimulatedDriver


def make_drivers(env: Env) -> dict[str, RuntimeDriver]:
    drivers: list[RuntimeDriver] = [ProcessDriver(env), SimulatedDriver(env)]
    return {d.name: d for d in drivers}
