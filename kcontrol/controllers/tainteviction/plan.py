"""When a pod must leave its node. Pure. Source: pkg/controller/tainteviction/taint_eviction.go.

Differs: the time of a toleration runs from the taint's `timeAdded`, so that a new leader does not start it anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from kclient.model import Obj
from kcore.meta.times import parse_time


def tolerates(toleration: Obj, taint: Obj) -> bool:
    """Kubernetes' matching of one toleration and one taint."""
    if toleration.get('effect') and toleration['effect'] != taint.get('effect'):
        return False
    if toleration.get('key') and toleration['key'] != taint.get('key'):
        return False
    if toleration.get('operator') == 'Exists':
        return True
    if not toleration.get('key'):
        return False  # an empty key needs Exists
    return (toleration.get('value') or '') == (taint.get('value') or '')


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
