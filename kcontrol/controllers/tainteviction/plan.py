"""When a pod must leave its node. Pure. Source: pkg/controller/tainteviction/taint_eviction.go.

Differs: the time of a toleration runs from the taint's `timeAdded`, so that a new leader does not start it anew. A
taint without one (`kubectl taint` writes none) counts from the moment at which it was first seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from kclient.model import Obj
from kcore.meta.times import format_micro, parse_time
from kcore.meta.tolerations import tolerates

Seen = dict[tuple[str, str], str]
"""(key, value) of a NoExecute taint → when it was first seen on its node."""


def no_execute(node: Obj) -> list[Obj]:
    return [t for t in (node.get('spec') or {}).get('taints') or () if t.get('effect') == 'NoExecute']


def first_seen(taints: Iterable[Obj], seen: Seen, now: datetime) -> Seen:
    """Of the taints that are there now; those that went are forgotten."""
    found = [(str(t.get('key')), str(t.get('value') or '')) for t in taints]
    return {which: seen.get(which) or format_micro(now) for which in found}


def dated(taints: Sequence[Obj], seen: Seen) -> list[Obj]:
    """The taints, each with a `timeAdded`."""
    times = [seen.get((str(t.get('key')), str(t.get('value') or ''))) for t in taints]
    return [{**({'timeAdded': at} if at else {}), **t} for t, at in zip(taints, times, strict=True)]


def evict_in_s(pod: Obj, taints: Iterable[Obj], now: datetime) -> float | None:
    """Seconds until the pod must go, 0 for now, None for never.

    Each taint must be tolerated; the shortest time counts.
    """
    tolerations = (pod.get('spec') or {}).get('tolerations') or ()
    waits: list[float] = []
    for taint in taints:
        if taint.get('effect') != 'NoExecute':
            continue
        matching = [t for t in tolerations if tolerates(t, taint)]
        if not matching:
            return 0.0
        limits = [float(t['tolerationSeconds']) for t in matching if t.get('tolerationSeconds') is not None]
        if limits:
            added = parse_time(taint['timeAdded']) if taint.get('timeAdded') else now
            waits.append(max(0.0, min(limits) - (now - added).total_seconds()))
    return min(waits, default=None)
