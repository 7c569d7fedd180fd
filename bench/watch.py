"""One writer, many watchers of the same key over 20 connections: events delivered a second, and from put to delivery.

A delivery counts when a watcher's own iterator has yielded the event. `1000 watchers, own connections` is the same with
one connection each.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bench.common import Endpoints, Figures, Settings, Target, emit, go, kstore, latencies, load, now, split
from kcore.env import Env
from kstore.client import StoreClient

CONNECTIONS_MAX = 20
PROCESSES = 2
KEY = b'bench-watch'


async def watcher(endpoints: Endpoints, options: dict[str, Any], pipe: Any) -> list[float]:
    """Latencies of all deliveries; the value is the time of its put on the machine's monotonic clock."""
    env = Env.real()
    clients = [StoreClient(endpoints, env, deadline_s=30.0) for _ in range(options['connections'])]
    for client in clients:
        await client.start()
    times: list[float] = []
    done = asyncio.Event()

    async def one(client: StoreClient, ready: asyncio.Semaphore) -> None:
        async with client.watch(KEY, None, prev_kv=False) as stream:
            ready.release()
            async for batch in stream:
                arrived = now()
                for event in batch.events:
                    if event.kv.value == b'end':
                        return
                    times.append(arrived - float(event.kv.value[:20]))

    ready = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(one(clients[i % len(clients)], ready)) for i in range(options['watchers'])]
    for _ in tasks:
        await ready.acquire()
    await go(pipe)
    await asyncio.gather(*tasks)
    done.set()
    for client in clients:
        await client.close()
    return times


async def writer(endpoints: Endpoints, options: dict[str, Any], pipe: Any) -> list[float]:
    times = []
    async with StoreClient(endpoints, Env.real(), deadline_s=30.0) as client:
        await client.get(KEY)
        await go(pipe)
        end = now() + options['seconds']
        while (started := now()) < end:
            await client.put(KEY, f'{started:020.9f}'.encode() + b'x' * 236)
            times.append(now() - started)
            if options['rate']:
                await asyncio.sleep(max(0.0, 1 / options['rate'] - (now() - started)))
        await client.put(KEY, b'end')
    return times


async def role(endpoints: Endpoints, options: dict[str, Any], pipe: Any) -> list[float]:
    return await (watcher if 'watchers' in options else writer)(endpoints, options, pipe)


def measure(target: Target, watchers: int, connections: int, seconds: float, rate: float) -> tuple[float, list[float]]:
    """Puts a second, and every delivery's latency. `rate` 0: the writer goes flat out."""
    shares = split(watchers, PROCESSES)
    per = split(min(watchers, connections), len(shares))
    options: list[dict[str, Any]] = [{'watchers': w, 'connections': c} for w, c in zip(shares, per, strict=True)]
    results = load(role, target, [*options, {'seconds': seconds, 'rate': rate}])
    return len(results[-1]) / seconds, [t for result in results[:-1] for t in result]


def run(settings: Settings) -> None:
    cases = [(1, 1, 0.0), (10, 10, 0.0)]
    if not settings.smoke:
        cases = [
            (1, 1, 0.0),
            (100, 10, 0.0),
            (1000, CONNECTIONS_MAX, 0.0),
            (1000, 1000, 0.0),
            (1000, CONNECTIONS_MAX, 50.0),
        ]
    for watchers, connections, rate in cases:
        figures = Figures()
        for _ in range(settings.runs):
            with kstore() as target:
                puts, times = measure(target, watchers, connections, settings.seconds, rate)
            latencies(figures, settings.seconds, times, 'events_per_s')
            figures.add(puts_per_s=puts)
        case = f'{watchers} watchers' + (', own connections' if connections == 1000 else '')
        emit('watch', case + (f', {rate:.0f} put/s' if rate else ''), figures)
