"""Keep leases alive, with 1 and 100 clients, each its own lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bench.common import Figures, Settings, Target, compare, go, latencies, load, now, split


async def worker(target: Target, options: dict[str, Any], pipe: Any) -> list[float]:
    drivers = await target.drivers(options['clients'])
    renewals = [await driver.lease(60) for driver in drivers]
    times: list[float] = []
    await go(pipe)
    end = now() + options['seconds']

    async def one(renew: Callable[[], Awaitable[object]]) -> None:
        while (started := now()) < end:
            await renew()
            times.append(now() - started)

    await asyncio.gather(*map(one, renewals))
    for driver in drivers:
        await driver.close()
    return times


def run(settings: Settings) -> None:
    for clients in (1, 10) if settings.smoke else (1, 100):

        def rate(target: Target, clients: int = clients) -> Figures:
            shares = [{'clients': c, 'seconds': settings.seconds} for c in split(clients, 2)]
            times = [t for result in load(worker, target, shares) for t in result]
            return latencies(settings.seconds, times)

        compare(settings, 'lease', f'{clients} clients', rate)
