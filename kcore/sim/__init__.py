"""The other world behind `Env`: virtual time, an in-memory disk that forgets, a network that misbehaves.

A `World` is one seed: a clock, a network between hosts, and per host an `Env` with a disk of its own. `World.run` runs
a coroutine on a loop whose time is the world's, so that hours pass in milliseconds, every interleaving follows from the
seed, and a deadlock is an exception. Faults are method calls (`host.disk.crash()`, `world.net.cut(...)`), so that a
test or a fault script decides when they strike; how they strike (which bytes tear) is drawn from the seed.

    world = World(seed=7)
    a, b = world.host('10.0.0.1'), world.host('10.0.0.2')
    world.run(main(a.env, b.env))
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Coroutine
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from kcore import tasks
from kcore.env import Env
from kcore.sim.disk import SimDisk
from kcore.sim.loop import HOST, Deadlock, SimClock, SimLoop
from kcore.sim.net import SimNetwork, Switch
from kcore.sim.processes import NoProcesses

__all__ = ['Deadlock', 'Host', 'SimClock', 'SimDisk', 'SimLoop', 'Switch', 'World', 'sim_env']

T = TypeVar('T')


@dataclass(frozen=True, slots=True)
class Host:
    """One simulated machine: what its components get, and what a fault script needs."""

    name: str
    env: Env
    disk: SimDisk

    def start(self, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `coro` as this host's process: all it starts stands still while the host is paused."""
        context = copy_context()
        context.run(HOST.set, self.name)
        return context.run(tasks.start_detached, self.name, coro)

    def pause(self) -> None:
        """Stop the process as SIGSTOP would: its sockets stay open and fill up, its timers are late."""
        cast(SimLoop, asyncio.get_running_loop()).pause(self.name)

    def resume(self) -> None:
        """Let a paused process run on; fine when it is not paused."""
        cast(SimLoop, asyncio.get_running_loop()).resume(self.name)

    @property
    def paused(self) -> bool:
        return cast(SimLoop, asyncio.get_running_loop()).is_paused(self.name)


class World:
    """Everything that one seed determines."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311 — a simulation wants a predictable one
        self.clock = SimClock()
        self.net = Switch(self.rng)
        self.hosts: dict[str, Host] = {}

    def host(self, name: str) -> Host:
        """The host with this name (also its address), made on first use."""
        if name not in self.hosts:
            rng = random.Random(f'{self.seed}/{name}')  # noqa: S311
            disk = SimDisk(rng)
            env = Env(self.clock, rng, disk, SimNetwork(self.net, name), NoProcesses(), lambda: _uid(rng))
            self.hosts[name] = Host(name, env, disk)
        return self.hosts[name]

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run to completion in virtual time. Raises what a callback raised; Deadlock when all wait for nothing."""
        loop = SimLoop(self.clock, self.rng)
        try:
            result = loop.run_until_complete(main)
            if loop.errors:
                raise loop.errors[0]
            return result
        finally:
            loop.drain()
            loop.close()


def sim_env(seed: int) -> Env:
    """The `Env` of the only host of a fresh world."""
    return World(seed).host('127.0.0.1').env


def _uid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
