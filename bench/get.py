"""Get one 256-byte key, linearizable and serializable, with 1, 100 and 1000 clients."""

from __future__ import annotations

import asyncio
from typing import Any

from bench.common import VALUE, Figures, Settings, Target, compare, go, latencies, load, now, split
from bench.put import CONNECTIONS_MAX, PROCESSES


async def worker(target: Target, options: dict[str, Any], pipe: Any) -> list[float]:
    drivers = await target.drivers(options['connections'])
    await drivers[0].put(b'bench', VALUE)
    times: list[float] = []
    await go(pipe)
    end = now() + options['seconds']

    async def one(number: int) -> None:
        get = drivers[number % len(drivers)].get
        while (started := now()) < end:
            await get(b'bench', serializable=options['serializable'])
            times.append(now() - started)

    await asyncio.gather(*(one(i) for i in range(options['clients'])))
    for driver in drivers:
        await driver.close()
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
    for serializable in (False, True):
        for clients in (1, 10) if settings.smoke else (1, 100, 1000):

            def rate(target: Target, clients: int = clients, serializable: bool = serializable) -> Figures:
                return latencies(settings.seconds, measure(target, clients, settings.seconds, serializable))

            compare(settings, 'get-serializable' if serializable else 'get', f'{clients} clients', rate)
