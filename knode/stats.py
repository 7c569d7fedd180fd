"""`/stats/summary`: use of the node, its pods and containers (cAdvisor's role), from psutil."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psutil

from kcore.env import Env
from kcore.meta.times import format_time
from knode.runtime.driver import NS

if TYPE_CHECKING:
    from knode.pods.worker import PodWorker


def summary(env: Env, node_name: str, workers: Sequence[PodWorker]) -> dict[str, Any]:
    """Blocking: walks the process table."""
    now = format_time(env.clock.wall())
    memory = psutil.virtual_memory()
    times = psutil.cpu_times()
    return {
        'node': {
            'nodeName': node_name,
            'startTime': format_time(datetime.fromtimestamp(psutil.boot_time(), UTC)),
            'cpu': {'time': now, 'usageCoreNanoSeconds': int((times.user + times.system) * NS)},
            'memory': {
                'time': now, 'availableBytes': memory.available, 'usageBytes': memory.used,
                'workingSetBytes': memory.total - memory.available,
            },
        },
        'pods': [_pod(w, now) for w in workers],
    }  # fmt: skip


def _pod(worker: PodWorker, now: str) -> dict[str, Any]:
    meta = worker.pod['metadata']
    handle = worker.checkpoint.handle
    found = worker.driver.stats(handle) if handle is not None else {}
    names = {r.id: (r.name, r.started_ns) for rs in worker.records().values() for r in rs}
    containers = [
        {
            'name': names[i][0],
            'startTime': format_time(datetime.fromtimestamp(names[i][1] / NS, UTC)),
            'cpu': {'time': now, 'usageCoreNanoSeconds': s.cpu_ns},
            'memory': {'time': now, 'usageBytes': s.rss_bytes, 'workingSetBytes': s.rss_bytes, 'rssBytes': s.rss_bytes},
        }
        for i, s in found.items()
        if i in names
    ]
    return {
        'podRef': {'name': meta['name'], 'namespace': meta['namespace'], 'uid': meta['uid']},
        'startTime': worker.checkpoint.start_time or now,
        'containers': containers,
        'cpu': {'time': now, 'usageCoreNanoSeconds': sum(s.cpu_ns for s in found.values())},
        'memory': {
            'time': now, 'usageBytes': sum(s.rss_bytes for s in found.values()),
            'workingSetBytes': sum(s.rss_bytes for s in found.values()),
        },
        'process_stats': {'process_count': sum(s.processes for s in found.values())},
    }  # fmt: skip
