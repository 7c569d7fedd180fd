"""Keep leases alive, with 1 and 100 clients, each its own lease."""

from __future__ import annotations

import asyncio
from typing import Any

from bench.common import Endpoints, Figures, Settings, emit, go, kstore, latencies, load, now, split
from kcore.env import Env
from kstore.client import StoreClient


async def worker(endpoints: Endpoints, options: dict[str, Any], pipe: Any) -> list[float]:
    env = Env.real()
    clients = [StoreClient(endpoints, env, deadline_s=30.0) for _ in range(options['clients'])]
    leases = []
    for client in clients:
        await client.start()
        leases.append(await client.lease_grant(60))
    times: list[float] = []
    await go(pipe)
    end = now() + options['seconds']

    async def one(client: StoreClient, lease: int) -> None:
        while (started := now()) < end:
            await client.lease_keepalive(lease)
            times.append(now() - started)

    await asyncio.gather(*(one(c, lease) for c, lease in zip(clients, leases, strict=True)))
    for client in clients:
        await client.close()
    return times


def run(settings: Settings) -> None:
    for clients in (1, 10) if settings.smoke else (1, 100):
        figures = Figures()
        for _ in range(settings.runs):
            with kstore() as target:
                shares = [{'clients': c, 'seconds': settings.seconds} for c in split(clients, 2)]
                times = [t for result in load(worker, target, shares) for t in result]
            latencies(figures, settings.seconds, times)
        emit('lease', f'{clients} clients', figures)
