"""One key, its writers, many watchers: events delivered a second, and the time from put to delivery.

A delivery counts when the watcher's own callback has the event; both sides have one, which their client calls while it
reads. Watchers share CONNECTIONS_MAX connections, as those of one program do; in `own connections` each has one. `16
writers` shows what the fan-out can carry: with a single writer, the time of a put bounds it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bench.common import Figures, Settings, Target, compare, go, latencies, load, now, split
from bench.drivers import VALUE_BYTES

CONNECTIONS_MAX = 20
PROCESSES = 2
KEY = b'bench-watch'
END = b'end'.ljust(VALUE_BYTES)


async def watcher(target: Target, options: dict[str, Any], pipe: Any) -> list[float]:
    """Latencies of all deliveries; the value is the time of its put on the machine's monotonic clock."""
    drivers = await target.drivers(options['connections'])
    times: list[float] = []
    done = asyncio.Event()
    left = options['watchers']

    def on_value(value: bytes) -> None:
        nonlocal left
        if value == END:
            left -= 1
            if not left:
                done.set()
        else:
            times.append(now() - float(value[:20]))

    for i in range(options['watchers']):
        await drivers[i % len(drivers)].watch(KEY, on_value)
    await go(pipe)
    await done.wait()
    for driver in drivers:
        await driver.close()
    return times


async def writer(target: Target, options: dict[str, Any], pipe: Any) -> list[float]:
    times: list[float] = []
    driver = await target.open()
    await go(pipe)
    end = now() + options['seconds']

    async def one() -> None:
        while (started := now()) < end:
            await driver.put(KEY, f'{started:020.9f}'.encode().ljust(VALUE_BYTES, b'x'))
            times.append(now() - started)
            if options['rate']:
                await asyncio.sleep(max(0.0, 1 / options['rate'] - (now() - started)))

    await asyncio.gather(*(one() for _ in range(options['writers'])))
    await driver.put(KEY, END)
    await driver.close()
    return times


async def role(target: Target, options: dict[str, Any], pipe: Any) -> list[float]:
    return await (watcher if 'watchers' in options else writer)(target, options, pipe)


def measure(target: Target, case: tuple[int, int, int, float], seconds: float) -> tuple[float, list[float]]:
    """Puts a second, and every delivery's latency. case: watchers, connections, writers, puts/s (0: flat out)."""
    watchers, connections, writers, rate = case
    shares = split(watchers, PROCESSES)
    per = split(min(watchers, connections), len(shares))
    options: list[dict[str, Any]] = [{'watchers': w, 'connections': c} for w, c in zip(shares, per, strict=True)]
    results = load(role, target, [*options, {'seconds': seconds, 'rate': rate, 'writers': writers}])
    return len(results[-1]) / seconds, [t for result in results[:-1] for t in result]


def run(settings: Settings) -> None:
    cases = [(1, 1, 1, 0.0), (10, 10, 2, 0.0)]
    if not settings.smoke:
        cases = [
            (1, 1, 1, 0.0),
            (100, 10, 1, 0.0),
            (100, 10, 16, 0.0),
            (1000, CONNECTIONS_MAX, 1, 0.0),
            (1000, CONNECTIONS_MAX, 16, 0.0),
            (1000, 1000, 1, 0.0),
            (1000, CONNECTIONS_MAX, 1, 50.0),
        ]
    for case in cases:
        watchers, connections, writers, per_s = case

        def rate(target: Target, case: tuple[int, int, int, float] = case) -> Figures:
            puts, times = measure(target, case, settings.seconds)
            figures = latencies(settings.seconds, times, 'events_per_s')
            figures.add(puts_per_s=puts)
            return figures

        name = f'{watchers} watchers' + (', own connections' if connections == 1000 else '')
        name += (f', {writers} writers' if writers > 1 else '') + (f', {per_s:.0f} put/s' if per_s else '')
        compare(settings, 'watch', name, rate, 'events_per_s')
