"""Get one 256-byte key, linearizable and serializable, with 1, 100 and 1000 clients."""

from __future__ import annotations

import asyncio
from typing import Any

from bench.common import VALUE, Endpoints, Figures, Settings, Target, emit, go, kstore, latencies, load, now, split
from bench.put import CONNECTIONS_MAX, PROCESSES
from kcore.env import Env
from kstore.client import StoreClient


async def worker(endpoints: Endpoints, options: dict[str, Any], pipe: Any) -> list[float]:
    env = Env.real()
    clients = [StoreClient(endpoints, env, deadline_s=30.0) for _ in range(options['connections'])]
    for client in clients:
        await client.start()
    await clients[0].put(b'bench', VALUE)
    times: list[float] = []
    await go(pipe)
    end = now() + options['seconds']

    async def one(client: StoreClient) -> None:
        while (started := now()) < end:
            await client.get(b'bench', serializable=options['serializable'])
            times.append(now() - started)

    await asyncio.gather(*(one(clients[i % len(clients)]) for i in range(options['clients'])))
    for client in clients:
        await client.close()
    return times


def measure(target: Target, clients: int, seconds: float, serializable: bool) -> list[float]:
    shares = split(clients, PROCESSES if clients > 1 else 1)
    connections = split(min(clients, CONNECTIONS_MAX), len(shares))
    options = [
        {'clients': c, 'connections': n, 'seconds': seconds, 'serializable': serializable}
        for c, n in zip(shares, connections, strict=True)
    ]
    return [t for result in load(worker, target, options) for t in result]


def run(settings: Settings) -> None:
    cases = (1, 10) if settings.smoke else (1, 100, 1000)
    for serializable in (False, True):
        for clients in cases:
            figures = Figures()
            for _ in range(settings.runs):
                with kstore() as target:
                    latencies(figures, settings.seconds, measure(target, clients, settings.seconds, serializable))
            name = 'get-serializable' if serializable else 'get'
            emit(name, f'{clients} clients', figures)
