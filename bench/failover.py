"""kill -9 the leader; how long until a client's next write is acknowledged."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

from bench.common import Figures, Settings, Target, compare, now
from bench.drivers import etcd_leader
from bench.grpc import Channel, GrpcError, message
from kcore.env import Env
from kstore.client import StoreClient

KEY = b'failover'
PROBE_S = 0.01
"""Pause between a probe's tries at etcd; our client does its own."""
PROBE_TIMEOUT_S = 0.5


async def once_kstore(target: Target) -> float:
    """Seconds from the kill to the first acknowledged write."""
    async with StoreClient(target.endpoints, Env.real(), deadline_s=20.0) as client:
        for n in range(50):
            await client.put(KEY, str(n).encode())
        leader = int((await client.status())['leader'])
        started = now()
        os.kill(target.pids[leader - 1], signal.SIGKILL)
        await client.put(KEY, b'after')
        return now() - started


async def once_etcd(target: Target) -> float:
    """The same with a probe at each survivor; the first acknowledgement counts."""
    leader = await etcd_leader(target.endpoints)
    channels = {e: await Channel.open(*e) for e in target.endpoints}
    for n in range(50):
        await _put(channels[leader], str(n).encode())
    started = now()
    os.kill(target.pids[target.endpoints.index(leader)], signal.SIGKILL)

    async def probe(channel: Channel) -> None:
        while True:
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    await _put(channel, b'after')
                return
            except (GrpcError, ConnectionError, TimeoutError):
                await asyncio.sleep(PROBE_S)

    probes = [asyncio.create_task(probe(c)) for e, c in channels.items() if e != leader]
    await asyncio.wait(probes, return_when=asyncio.FIRST_COMPLETED)
    took = now() - started
    for task in probes:
        task.cancel()
    await asyncio.gather(*probes, return_exceptions=True)
    for channel in channels.values():
        channel.close()
    return took


async def _put(channel: Channel, value: bytes) -> None:
    await channel.unary('/etcdserverpb.KV/Put', message((1, KEY), (2, value)))


def measure(target: Target) -> Figures:
    figures = Figures()
    once = once_kstore if target.kind == 'kubeling' else once_etcd
    figures.add(median_ms=asyncio.run(once(target)) * 1000)
    return figures


def run(settings: Settings) -> None:
    trials = 1 if settings.smoke else max(20, settings.runs)
    compare(replace(settings, runs=trials), 'failover', f'kill -9 leader, {trials} trials', measure, 'median_ms')
