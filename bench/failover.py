"""kill -9 the leader; how long until a client's next write is acknowledged."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics

from bench.common import Figures, Settings, Target, emit, kstore, now
from kcore.env import Env
from kstore.client import StoreClient


async def once(target: Target) -> float:
    """Seconds from the kill to the first acknowledged write."""
    async with StoreClient(target.endpoints, Env.real(), deadline_s=20.0) as client:
        for n in range(50):
            await client.put(b'failover', str(n).encode())
        leader = int((await client.status())['leader'])
        started = now()
        os.kill(target.pids[leader - 1], signal.SIGKILL)
        await client.put(b'failover', b'after')
        return now() - started


def run(settings: Settings) -> None:
    gaps = []
    for _ in range(1 if settings.smoke else max(5, settings.runs)):
        with kstore() as target:
            gaps.append(asyncio.run(once(target)))
    figures = Figures()
    figures.add(median_ms=statistics.median(gaps) * 1000, max_ms=max(gaps) * 1000, trials=len(gaps))
    emit('failover', 'kill -9 leader', figures)
