"""backoffLimitPerIndex: failures are counted for each completion index by itself. Pure.

A replacement carries the count of its index's failures as an annotation. Until the cache shows the replacement, the
pod with the highest count keeps its finalizer, so that the count cannot get lost.
Source: pkg/controller/job/backoff_utils.go, indexed_job_utils.go (getPodsWithDelayedDeletionPerIndex); KEP-3850.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from kclient.model import Obj
from kcontrol.controllers.job.indexes import index_of, parse
from kcontrol.controllers.job.policy import action_of
from kcore.meta.objects import annotations_of, get_condition, uid_of
from kcore.meta.times import parse_time

FAILURES = 'batch.kubernetes.io/job-index-failure-count'
IGNORED = 'batch.kubernetes.io/job-index-ignored-failure-count'
BASE_S, CAP_S = 10.0, 600.0
"""Pause before an index is tried again; doubles with each of its failures."""
Counts = dict[str, str]
"""Annotations of a replacement."""


def per_index(job: Obj) -> bool:
    return (job.get('spec') or {}).get('backoffLimitPerIndex') is not None


def _number(pod: Obj, annotation: str) -> int:
    text = annotations_of(pod).get(annotation, '')
    return int(text) if text.isdigit() else 0


def failures_of(job: Obj, pod: Obj) -> tuple[int, int]:
    """(failures, ignored failures) of the pod's index once this pod is counted."""
    failed, ignored = _number(pod, FAILURES), _number(pod, IGNORED)
    if action_of(job, pod)[0] == 'Ignore':
        return failed, ignored + 1
    return failed + 1, ignored


def exhausted(job: Obj, pod: Obj) -> bool:
    """Whether this failed pod is the end of its index."""
    if action_of(job, pod)[0] == 'FailIndex':
        return True
    return failures_of(job, pod)[0] > int(job['spec']['backoffLimitPerIndex'])


def failed_indexes(job: Obj, failed: Iterable[Obj]) -> set[int]:
    """Those of the status and those that the failed pods add."""
    held = parse((job.get('status') or {}).get('failedIndexes'))
    return held | {i for p in failed if (i := index_of(p)) is not None and exhausted(job, p)}


def waiting(job: Obj, failed: Iterable[Obj], over: set[int], active: Iterable[Obj]) -> dict[int, Obj]:
    """Index → the failed pod whose count its replacement takes over. over: indexes that need no replacement."""
    taken = over | {i for p in active if (i := index_of(p)) is not None}
    found: dict[int, Obj] = {}
    for pod in failed:
        index = index_of(pod)
        if index is None or index in taken:
            continue
        known = found.get(index)
        if known is None or _rank(job, pod) > _rank(job, known):
            found[index] = pod
    return found


def _rank(job: Obj, pod: Obj) -> tuple[int, str]:
    return sum(failures_of(job, pod)), uid_of(pod)


def replacement(job: Obj, pod: Obj | None) -> Counts:
    """Annotations of the pod that follows `pod`, or of the first one of its index."""
    failed, ignored = failures_of(job, pod) if pod is not None else (0, 0)
    return {FAILURES: str(failed)} | ({IGNORED: str(ignored)} if ignored else {})


def pause_s(job: Obj, pod: Obj, now: datetime) -> float:
    """Seconds until the index of this failed pod may be tried again."""
    count = sum(failures_of(job, pod))
    pause: float = min(CAP_S, BASE_S * 2 ** min(count - 1, 16))
    return max(0.0, pause - (now - ended_at(pod)).total_seconds())


def ended_at(pod: Obj) -> datetime:
    """When the last container ended, as far as the pod says."""
    status = pod.get('status') or {}
    states = [(c.get('state') or {}).get('terminated') or {} for c in status.get('containerStatuses') or ()]
    times = [str(s['finishedAt']) for s in states if s.get('finishedAt')]
    ready = get_condition(pod, 'Ready') or {}
    created = str(pod['metadata'].get('creationTimestamp') or '1970-01-01T00:00:00Z')
    return parse_time(max(times, default=ready.get('lastTransitionTime') or created))
