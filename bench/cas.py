"""Compare-and-swap on one key: contenders read, swap, and try again at once."""

from __future__ import annotations

import asyncio
from typing import Any

from bench.common import VALUE, Figures, Settings, Target, compare, go, latencies, load, now, split
from bench.drivers import Driver

KEY = b'cas'


async def worker(target: Target, options: dict[str, Any], pipe: Any) -> tuple[list[float], int]:
    wins: list[float] = []
    losses = 0
    drivers = await target.drivers(options['clients'])
    await go(pipe)
    end = now() + options['seconds']

    async def one(driver: Driver) -> None:
        nonlocal losses
        mod = await driver.get(KEY)
        started = now()
        while now() < end:
            succeeded, mod = await driver.cas(KEY, mod, VALUE)
            if succeeded:
                wins.append(now() - started)
                started = now()
                mod = await driver.get(KEY)
            else:
                losses += 1

    await asyncio.gather(*map(one, drivers))
    for driver in drivers:
        await driver.close()
    return wins, losses


def run(settings: Settings) -> None:
    for contenders in (1, 4) if settings.smoke else (1, 4, 16, 64):

        def rate(target: Target, contenders: int = contenders) -> Figures:
            shares = [{'clients': c, 'seconds': settings.seconds} for c in split(contenders, 2)]
            results = load(worker, target, shares)
            figures = latencies(settings.seconds, [t for wins, _ in results for t in wins], 'wins_per_s')
            figures.add(losses_per_s=sum(losses for _, losses in results) / settings.seconds)
            return figures

        compare(settings, 'cas', f'{contenders} contenders', rate, 'wins_per_s')
