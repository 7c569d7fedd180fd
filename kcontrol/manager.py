"""The controller manager process: leadership, controllers, scheduler, health.

Controllers and scheduler are two leaders by two Leases, so that they may live on different machines. Each builds its
caches when it gains the lease and drops everything when it loses it; its writes pass `LeaderElector.check` first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from kclient.api import Client
from kclient.discovery import discover
from kclient.election import LeaderElector
from kclient.errors import ClientError
from kclient.kubeconfig import load
from kcontrol.config import ControlConfig
from kcontrol.controller import Controller, Loop
from kcontrol.controllers import CONTROLLERS
from kcontrol.health import serve_health
from kcontrol.metrics import Metrics
from kcontrol.runner import Runner, served_only
from kcontrol.scheduler.cycle import run_scheduler
from kcore.backoff import Backoff
from kcore.env import Env
from kcore.process import Ready
from kcore.tasks import start_essential

log = structlog.get_logger('kcontrol.manager')

LEASE_NAMESPACE = 'kube-system'
MANAGER_LEASE, SCHEDULER_LEASE = 'kube-controller-manager', 'kube-scheduler'


class UnknownController(ValueError):
    """--controllers names something that does not exist."""


async def run(config: ControlConfig, env: Env, ready: Ready) -> None:
    """Serve until cancelled. `ready` means: competing for leadership and answering /healthz.

    Raises ConfigError (kubeconfig), UnknownController.
    """
    chosen = choose(config, CONTROLLERS)
    client_config = load(config.kubeconfig, env)
    scheduler_config = load(config.scheduler_kubeconfig, env) if config.scheduler_kubeconfig else client_config
    manager = Manager(config, env)
    seen, agent = manager.metrics.requested, f'kubeling-{{}}/{config.identity}'
    async with (
        Client(client_config, env, user_agent=agent.format('controller-manager'), observe=seen) as client,
        Client(scheduler_config, env, user_agent=agent.format('scheduler'), observe=seen) as scheduler_client,
        asyncio.TaskGroup() as group,
    ):
        if config.http is not None:
            await serve_health(group, config.http, env, manager)
        start_essential(group, 'controllers', manager.lead_controllers(client, chosen))
        if config.scheduler:
            start_essential(group, 'scheduler', manager.lead_scheduler(scheduler_client))
        ready()


def choose(config: ControlConfig, known: Sequence[Controller | Loop]) -> list[Controller | Loop]:
    """The controllers that --controllers asks for. Raises UnknownController."""
    names = {declared.name for declared in known}
    for asked in config.controllers:
        if asked.removeprefix('-') not in names | {'*'}:
            raise UnknownController(
                f'--controllers: there is no controller {asked!r}; known: {", ".join(sorted(names))}'
            )
    return [declared for declared in known if config.wants(declared.name)]


class Manager:
    """Who leads here, and what runs while leading."""

    def __init__(self, config: ControlConfig, env: Env) -> None:
        self._config, self._env = config, env
        self.metrics = Metrics()
        self.electors: dict[str, LeaderElector] = {}
        self.runner: Runner | None = None

    def stuck(self) -> dict[str, bool]:
        """What runs here, and whether it hangs. Empty while another process leads."""
        return self.runner.stuck() if self.runner is not None else {}

    async def lead_controllers(self, client: Client, chosen: Sequence[Controller | Loop]) -> None:
        elector = self._elector(client, MANAGER_LEASE)
        guarded = client.guarded(elector.check)

        async def lead() -> None:
            served = await self._served(client, chosen)
            self.runner = Runner(guarded, self._env, self._config, served, metrics=self.metrics)
            try:
                await self.runner.run()
            finally:
                self.runner = None

        await elector.run(self._counted(MANAGER_LEASE, lead))

    async def lead_scheduler(self, client: Client) -> None:
        elector = self._elector(client, SCHEDULER_LEASE)
        guarded = client.guarded(elector.check)

        async def lead() -> None:
            await run_scheduler(guarded, self._env, metrics=self.metrics)

        await elector.run(self._counted(SCHEDULER_LEASE, lead))

    def _elector(self, client: Client, lease: str) -> LeaderElector:
        elector = LeaderElector(
            client, self._env, lease, LEASE_NAMESPACE, self._config.identity, timing=self._config.timing()
        )
        self.electors[lease] = elector
        return elector

    def _counted(self, lease: str, lead: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        gauge = self.metrics.leader.labels(lease)
        gauge.set(0)

        async def counted() -> None:
            gauge.set(1)
            try:
                await lead()
            finally:
                gauge.set(0)

        return counted

    async def _served(self, client: Client, chosen: Sequence[Controller | Loop]) -> list[Controller | Loop]:
        """Without those whose kinds this server does not have: an informer of an unknown kind never gets in step."""
        backoff = Backoff(0.1, 5.0, self._env.rng)
        while True:
            try:
                found = await discover(client)
                break
            except ClientError as e:
                log.warning('discovery failed', err=str(e))
                await asyncio.sleep(backoff.next())
        return served_only(chosen, found)
