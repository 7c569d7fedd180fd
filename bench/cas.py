"""Compare-and-swap on one key: contenders read, swap, and try again at once."""

from __future__ import annotations

import asyncio
from typing import Any

from bench.common import Endpoints, Figures, Settings, emit, go, kstore, latencies, load, now, split
from kcore.env import Env
from kstore.client import StoreClient


async def worker(endpoints: Endpoints, options: dict[str, Any], pipe: Any) -> tuple[list[float], int]:
    env, wins, losses = Env.real(), [], 0
    clients = [StoreClient(endpoints, env, deadline_s=30.0) for _ in range(options['clients'])]
    for client in clients:
        await client.start()
        await client.get(b'cas')
    await go(pipe)
    end = now() + options['seconds']

    async def one(client: StoreClient) -> None:
        nonlocal losses
        kv = (await client.get(b'cas')).kv
        started = now()
        while now() < end:
            reply = await client.cas(b'cas', kv.mod_revision if kv else 0, b'x' * 256)
            if reply.succeeded:
                wins.append(now() - started)
                started = now()
                kv = (await client.get(b'cas')).kv
            else:
                losses += 1
                kv = reply.kv

    await asyncio.gather(*(one(c) for c in clients))
    for client in clients:
        await client.close()
    return wins, losses


def run(settings: Settings) -> None:
    for contenders in (1, 4) if settings.smoke else (1, 4, 16, 64):
        figures = Figures()
        for _ in range(settings.runs):
            with kstore() as target:
                shares = [{'clients': c, 'seconds': settings.seconds} for c in split(contenders, 2)]
                results = load(worker, target, shares)
            latencies(figures, settings.seconds, [t for wins, _ in results for t in wins], 'wins_per_s')
            figures.add(losses_per_s=sum(losses for _, losses in results) / settings.seconds)
        emit('cas', f'{contenders} contenders', figures)
