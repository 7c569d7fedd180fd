"""Summaries of node agents as NodeMetrics and PodMetrics. Pure.

Quantities look as metrics-server writes them: CPU in nanocores or the largest unit without a fraction, memory in
binary units. Source: metrics-server pkg/storage, pkg/api.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from kapi.kinds.metrics import nodemetrics, podmetrics
from kapi.registry.kind import Kind
from kcore.meta import quantity
from kcore.meta.times import format_time

Obj = dict[str, Any]
_NANO = Decimal('1e-9')


def _usage(stats: Obj) -> Obj | None:
    """None before there is a rate."""
    cpu, memory = stats.get('cpu') or {}, stats.get('memory') or {}
    if cpu.get('usageNanoCores') is None or memory.get('workingSetBytes') is None:
        return None
    return {
        'cpu': quantity.format(int(cpu['usageNanoCores']) * _NANO),
        'memory': quantity.format(int(memory['workingSetBytes']), 'BinarySI'),
    }


def go_duration(seconds: float) -> str:
    """`15.042s`, `1m0.5s`: as Go prints a duration of at least a second."""
    minutes, rest = divmod(round(seconds, 3), 60)
    text = f'{rest:.3f}'.rstrip('0').rstrip('.') + 's'
    hours, minutes = divmod(int(minutes), 60)
    return f'{hours}h{minutes}m{text}' if hours else f'{minutes}m{text}' if minutes else text


def _measured(kind: Kind, of: Obj, stats: Obj, now: datetime) -> Obj:
    meta = of['metadata']
    kept = {k: meta[k] for k in ('name', 'namespace', 'labels') if meta.get(k)}
    window = (stats.get('cpu') or {}).get('windowSeconds') or 0
    return {
        'kind': kind.resource.kind, 'apiVersion': kind.resource.api_version,
        'metadata': {**kept, 'creationTimestamp': format_time(now)},
        'timestamp': stats['cpu']['time'],
        'window': go_duration(float(window)),
    }  # fmt: skip


def of_node(node: Obj, summary: Obj | None, now: datetime) -> Obj | None:
    """None: there are no figures."""
    stats = (summary or {}).get('node') or {}
    usage = _usage(stats)
    return None if usage is None else {**_measured(nodemetrics.KIND, node, stats, now), 'usage': usage}


def of_pods(pods: Iterable[Obj], summaries: Mapping[str, Obj], now: datetime) -> list[Obj]:
    """The running pods that have figures for all of their running containers."""
    known = {
        (node, p['podRef']['namespace'], p['podRef']['name']): p for node, s in summaries.items() for p in s['pods']
    }
    found = []
    for pod in pods:
        meta = pod['metadata']
        stats = known.get(((pod.get('spec') or {}).get('nodeName') or '', meta['namespace'], meta['name']))
        if stats is None or (pod.get('status') or {}).get('phase') != 'Running':
            continue
        usages = [(c['name'], _usage(c)) for c in stats['containers']]
        if usages and all(u is not None for _, u in usages):
            containers = [{'name': name, 'usage': usage} for name, usage in usages]
            found.append({**_measured(podmetrics.KIND, pod, stats, now), 'containers': containers})
    return found
