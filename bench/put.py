"""Put 256 bytes through the leader, with 1, 100 and 1000 clients; then memory and disk after 100,000 distinct keys."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from bench.common import (
    VALUE,
    Figures,
    Settings,
    Target,
    compare,
    go,
    latencies,
    load,
    now,
    rss_mb,
    split,
)

CONNECTIONS_MAX = 100
"""Connections at 1000 clients, as etcd's own benchmark does: ten clients share one."""
PROCESSES = 2
KEYS = 100_000


async def worker(target: Target, options: dict[str, Any], pipe: Any) -> list[float]:
    drivers = await target.drivers(options['connections'])
    times: list[float] = []
    await go(pipe)
    end = now() + options['seconds']

    async def one(number: int) -> None:
        put = drivers[number % len(drivers)].put
        n = 0
        while (started := now()) < end:
            n += 1
            await put(f'bench/{options["share"]}/{number}/{n}'.encode(), VALUE)
            times.append(now() - started)

    await asyncio.gather(*(one(i) for i in range(options['clients'])))
    for driver in drivers:
        await driver.close()
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
    for clients in (1, 10) if settings.smoke else (1, 100, 1000):

        def rate(target: Target, clients: int = clients) -> Figures:
            return latencies(settings.seconds, measure(target, clients, settings.seconds))

        compare(settings, 'put', f'{clients} clients', rate)
    keys = 1_000 if settings.smoke else KEYS
    once = replace(settings, runs=1)  # memory and disk hardly vary
    compare(once, 'put', f'{keys} keys', lambda target: size(target, keys), 'rss_mb')


def size(target: Target, keys: int) -> Figures:
    """Memory and disk of the biggest member after `keys` distinct puts."""
    figures = Figures()
    started = now()
    load(filler, target, [{'keys': k, 'share': i} for i, k in enumerate(split(keys, PROCESSES))])
    took = now() - started
    asyncio.run(asyncio.sleep(1.0))
    disk = [sum(f.stat().st_blocks * 512 for f in p.rglob('*')) for p in target.data.iterdir() if p.is_dir()]
    figures.add(rss_mb=max(map(rss_mb, target.pids)), disk_mb=max(disk) / 1e6, fill_s=took)
    return figures


async def filler(target: Target, options: dict[str, Any], pipe: Any) -> int:
    driver = await target.open()
    await go(pipe)
    numbers = iter(range(options['keys']))

    async def one() -> None:
        for n in numbers:
            await driver.put(f'fill/{options["share"]}/{n:08d}'.encode(), VALUE)

    await asyncio.gather(*(one() for _ in range(200)))
    await driver.close()
    return int(options['keys'])
