"""Put 256 bytes through the leader, with 1, 100 and 1000 clients; then memory and disk after 100,000 distinct keys."""

from __future__ import annotations

import asyncio
from typing import Any

from bench.common import (
    VALUE,
    Endpoints,
    Figures,
    Settings,
    Target,
    emit,
    go,
    kstore,
    latencies,
    load,
    now,
    rss_mb,
    split,
)
from kcore.env import Env
from kstore.client import StoreClient

CONNECTIONS_MAX = 100
"""Connections at 1000 clients, as etcd's own benchmark does: ten clients share one."""
PROCESSES = 2


async def worker(endpoints: Endpoints, options: dict[str, Any], pipe: Any) -> list[float]:
    env = Env.real()
    clients = [StoreClient(endpoints, env, deadline_s=30.0) for _ in range(options['connections'])]
    for client in clients:
        await client.start()
        await client.get(b'ready')
    times: list[float] = []
    await go(pipe)
    end = now() + options['seconds']

    async def one(number: int) -> None:
        client = clients[number % len(clients)]
        n = 0
        while (started := now()) < end:
            n += 1
            await client.put(f'bench/{options["share"]}/{number}/{n}'.encode(), VALUE)
            times.append(now() - started)

    await asyncio.gather(*(one(i) for i in range(options['clients'])))
    for client in clients:
        await client.close()
    return times


def measure(target: Target, clients: int, seconds: float) -> list[float]:
    shares = split(clients, PROCESSES if clients > 1 else 1)
    connections = split(min(clients, CONNECTIONS_MAX), len(shares))
    options = [
        {'clients': c, 'connections': n, 'seconds': seconds, 'share': i}
        for i, (c, n) in enumerate(zip(shares, connections, strict=True))
    ]
    return [t for result in load(worker, target, options) for t in result]


def run(settings: Settings) -> None:
    cases = (1, 10) if settings.smoke else (1, 100, 1000)
    for clients in cases:
        figures = Figures()
        for _ in range(settings.runs):
            with kstore() as target:
                latencies(figures, settings.seconds, measure(target, clients, settings.seconds))
        emit('put', f'{clients} clients', figures)
    if not settings.smoke:
        size()


def size(keys: int = 100_000) -> None:
    """Memory and disk of the biggest member after `keys` distinct puts."""
    figures = Figures()
    with kstore() as target:
        started = now()
        load(filler, target, [{'keys': k, 'share': i} for i, k in enumerate(split(keys, PROCESSES))])
        took = now() - started
        asyncio.run(asyncio.sleep(1.0))
        disk = [sum(f.stat().st_blocks * 512 for f in p.rglob('*')) for p in target.data.iterdir() if p.is_dir()]
        figures.add(rss_mb=max(map(rss_mb, target.pids)), disk_mb=max(disk) / 1e6, fill_s=took)
    emit('put', f'{keys} keys', figures)


async def filler(endpoints: Endpoints, options: dict[str, Any], pipe: Any) -> int:
    async with StoreClient(endpoints, Env.real(), deadline_s=60.0) as client:
        await go(pipe)
        numbers = iter(range(options['keys']))

        async def one() -> None:
            for n in numbers:
                await client.put(f'fill/{options["share"]}/{n:08d}'.encode(), VALUE)

        await asyncio.gather(*(one() for _ in range(200)))
    return int(options['keys'])
