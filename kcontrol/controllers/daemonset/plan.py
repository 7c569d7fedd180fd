"""Which daemon pods to create and delete in one pass, and the status. Pure.

Nodes first get what they lack and lose what does not belong there; then the rollout replaces old pods, within
`maxUnavailable` (delete old, create new) or `maxSurge` (create new beside the old, delete the old once the new is
available). Source: pkg/controller/daemon/daemon_controller.go (podsShouldBeOnNode), update.go (rollingUpdate).
Differs: an old pod that is not available counts against `maxUnavailable`, so that the bound holds in every pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from kclient.model import Obj
from kcontrol.controllers.daemonset.placement import fits, node_of
from kcontrol.controllers.replicaset.plan import available_in_s, next_available_s
from kcontrol.numbers import resolve
from kcontrol.revisions import HASH_LABEL
from kcore.meta.objects import deleting, is_pod_finished, is_pod_ready, labels_of, name_of

BURST_MAX = 250
"""Pods created or deleted in one pass; the rest follows once the cache shows these."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass. Failed pods are deleted too, at a pace that the caller keeps by node."""

    create: tuple[str, ...]
    """Names of nodes."""
    delete: tuple[Obj, ...]
    failed: tuple[Obj, ...]
    """Ended with failure: to delete, with back-off."""
    recheck_s: float | None


@dataclass(slots=True)
class _Nodes:
    """What is where, and what is to be done."""

    create: dict[str, None] = field(default_factory=dict)
    delete: list[Obj] = field(default_factory=list)
    failed: list[Obj] = field(default_factory=list)


def by_age(pods: Iterable[Obj]) -> list[Obj]:
    """Those that have a node first, then the oldest."""
    return sorted(
        pods,
        key=lambda p: (
            not (p.get('spec') or {}).get('nodeName'),
            not is_pod_ready(p),
            p['metadata'].get('creationTimestamp') or '',
            name_of(p),
        ),
    )


def group(pods: Iterable[Obj]) -> dict[str, list[Obj]]:
    """Node name → its pods."""
    found: dict[str, list[Obj]] = {}
    for pod in pods:
        found.setdefault(node_of(pod), []).append(pod)
    return found


def bounds(ds: Obj, desired: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as counts; maxUnavailable is 1 when both come out as nothing."""
    rolling = (ds['spec'].get('updateStrategy') or {}).get('rollingUpdate') or {}
    surge = resolve(rolling.get('maxSurge', 0), desired, up=True)
    unavailable = resolve(rolling.get('maxUnavailable', 1), desired, up=True)
    return surge, unavailable if surge or unavailable else 1


def plan(ds: Obj, nodes: Sequence[Obj], pods: Sequence[Obj], revision_hash: str, now: datetime) -> Plan:
    """pods: claimed by `ds`. revision_hash: of its present template."""
    if deleting(ds):
        return Plan((), (), (), None)
    placed, work = group(pods), _Nodes()
    wanted = {name_of(n): fits(ds, n) for n in nodes}
    surge, unavailable = bounds(ds, sum(should for should, _ in wanted.values()))
    for name, (should, may_stay) in wanted.items():
        _tend(work, name, placed.get(name, []), should=should, may_stay=may_stay, surging=surge > 0)
    for name, lost in placed.items():
        if name not in wanted:  # bound pods of a vanished node are the pod collector's
            work.delete += [p for p in lost if not deleting(p) and not (p.get('spec') or {}).get('nodeName')]
    if (ds['spec'].get('updateStrategy') or {}).get('type') != 'OnDelete':
        homes = {name: placed.get(name, []) for name, (should, _) in wanted.items() if should}
        rollout = _Rollout(ds, revision_hash, now, homes, work)
        rollout.surge(surge) if surge else rollout.replace(unavailable)
    return Plan(
        tuple(work.create)[:BURST_MAX], tuple(work.delete)[:BURST_MAX], tuple(work.failed)[:BURST_MAX],
        next_available_s(ds, [p for p in pods if not deleting(p)], now),
    )  # fmt: skip


def _tend(work: _Nodes, name: str, pods: list[Obj], *, should: bool, may_stay: bool, surging: bool) -> None:
    """One node, without regard to versions."""
    living = [p for p in pods if not deleting(p)]
    if not may_stay:
        work.delete += living
        return
    if should and not pods:
        work.create[name] = None
        return
    running = [p for p in living if not is_pod_finished(p)]
    for pod in living:
        if is_pod_finished(pod):
            failed = (pod.get('status') or {}).get('phase') == 'Failed'
            (work.failed if failed else work.delete).append(pod)
    if not surging or len({labels_of(p).get(HASH_LABEL) for p in running}) == 1:
        work.delete += by_age(running)[1:]


class _Rollout:
    """Replace pods of older templates."""

    def __init__(
        self, ds: Obj, revision_hash: str, now: datetime, homes: dict[str, list[Obj]], work: _Nodes
    ) -> None:  # fmt: skip
        self._hash, self._now, self._homes, self._work = revision_hash, now, homes, work
        self._min_ready_s = int(ds['spec'].get('minReadySeconds') or 0)
        self._going = {id(p) for p in [*work.delete, *work.failed]}

    def _available(self, pod: Obj) -> bool:
        return available_in_s(pod, self._min_ready_s, self._now) == 0

    def _pair(self, pods: list[Obj]) -> tuple[Obj | None, Obj | None] | None:
        """(old, new) of a node; None while something is on its way there."""
        old = new = None
        for pod in pods:
            if deleting(pod) or id(pod) in self._going:
                return None
            if labels_of(pod).get(HASH_LABEL) == self._hash:
                new = pod
            else:
                old = pod
        return old, new

    def replace(self, most: int) -> None:
        """Delete old pods; unavailable ones at once, others as long as at most `most` are missing."""
        missing, candidates = 0, []
        for pods in self._homes.values():
            pair = self._pair(pods)
            old, new = pair if pair is not None else (None, None)
            if new is not None and old is None:
                missing += not self._available(new)
            elif old is not None and new is None and self._available(old):
                candidates.append(old)
            else:
                missing += 1
                if old is not None:
                    self._work.delete.append(old)
        self._work.delete += candidates[: max(0, most - missing)]

    def surge(self, most: int) -> None:
        """Create new pods beside old ones, at most `most` at a time; an old one goes when the new one is available."""
        surging, candidates = 0, []
        for name, pods in self._homes.items():
            pair = self._pair(pods)
            old, new = pair if pair is not None else (None, None)
            if old is None:
                continue
            if new is not None:
                if self._available(new):
                    self._work.delete.append(old)
                else:
                    surging += 1
            elif self._available(old):
                candidates.append(name)
            else:
                self._work.create[name] = None
        self._work.create.update(dict.fromkeys(candidates[: max(0, most - surging)]))


def plan_status(ds: Obj, nodes: Iterable[Obj], pods: Iterable[Obj], revision_hash: str, now: datetime) -> Obj:
    """The whole status."""
    placed, min_ready_s = group(pods), int(ds['spec'].get('minReadySeconds') or 0)
    desired = current = misplaced = ready = updated = available = 0
    for node in nodes:
        should, _ = fits(ds, node)
        there = by_age(p for p in placed.get(name_of(node), ()) if not deleting(p))
        if not should:
            misplaced += bool(there)
            continue
        desired += 1
        current += bool(there)
        for pod in there[:1]:
            ready += is_pod_ready(pod)
            available += available_in_s(pod, min_ready_s, now) == 0
            updated += labels_of(pod).get(HASH_LABEL) == revision_hash
    counts = {
        'currentNumberScheduled': current, 'numberMisscheduled': misplaced, 'desiredNumberScheduled': desired,
        'numberReady': ready,
    }  # fmt: skip
    optional = {
        'updatedNumberScheduled': updated, 'numberAvailable': available, 'numberUnavailable': desired - available,
    }  # fmt: skip
    old = {k: v for k, v in (ds.get('status') or {}).items() if k not in counts and k not in optional}
    status = old | counts | {k: v for k, v in optional.items() if v}
    return status | {'observedGeneration': ds['metadata'].get('generation', 0)}
