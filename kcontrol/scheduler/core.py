"""The scheduler without I/O: informer events in, decisions out. `cycle.py` carries the decisions to the API.

Safety rests on two facts: a pod is decided only when it is pending and not assumed, and it stays assumed on its node
until the API's answer is certain. So room is never given twice and a pod is never bound twice.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from kcontrol.scheduler.framework import Framework, Happening, Placement, Plugin
from kcontrol.scheduler.plugins import PLUGINS
from kcontrol.scheduler.podinfo import PodInfo, parse_pod
from kcontrol.scheduler.preemption import Budget, Preemption, parse_budget, preempt
from kcontrol.scheduler.queue import SchedulingQueue
from kcontrol.scheduler.resources import held
from kcontrol.scheduler.snapshot import Cache, Snapshot
from kcontrol.scheduler.volumes import Choice, is_bound
from kcontrol.volumes import SELECTED_NODE
from kcore.meta.objects import annotations_of, is_pod_finished, key_of, name_of

Obj = dict[str, Any]

ASSUMPTION_S = 30.0
"""How long the informer may take to show a binding that the API has accepted."""
VOLUMES_S = 600.0
"""How long the claims of a placed pod may take to be bound."""
NO_NODES = 'no nodes available to schedule pods'


class Bind(NamedTuple):
    """Write the binding of `pod` to `pod.node`, then say `bound`, `unbound` or `lost`."""

    pod: PodInfo


class BindVolumes(NamedTuple):
    """Write `choice` for the claims of `pod`, then say `volumes_written` or `volumes_refused`.

    `Bind` follows when the claims are bound.
    """

    pod: PodInfo
    choice: Choice


class Failure(NamedTuple):
    """Nothing fits: report it; evict `victims` if there are any, which makes room on `nominated`.

    `outranked` are lesser pods that waited for room there: their nomination is over, which their status has to say.
    """

    pod: PodInfo
    message: str
    nominated: str = ''
    victims: tuple[PodInfo, ...] = ()
    outranked: tuple[PodInfo, ...] = ()


Decision = Bind | BindVolumes | Failure


class Core:
    """`now` gives monotonic seconds; `wake` is called when there may be work that was not there before."""

    def __init__(
        self,
        name: str,
        rng: random.Random,
        now: Callable[[], float],
        wake: Callable[[], None] = lambda: None,
        plugins: tuple[Plugin, ...] = PLUGINS,
    ) -> None:
        self.name, self._now, self._wake = name, now, wake
        self.cache = Cache()
        self.framework = Framework(plugins, rng)
        self.queue = SchedulingQueue({p.name: p.wakes for p in plugins}, now)
        self._pending: dict[str, PodInfo] = {}
        self._budgets: dict[str, Budget] = {}
        self._unsettled: dict[str, tuple[PodInfo, float]] = {}
        """Placed pods whose claims are being bound, and until when; infinity while that is being asked for."""
        self._settled: deque[Bind | Failure] = deque()

    def next(self) -> Decision | None:
        """Decide about one pod; None when no pod is ready."""
        now = self._now()
        for pod in self.cache.expire(now):
            self._requeue(pod.uid)
        for pod in [pod for pod, until in self._unsettled.values() if until <= now]:
            self.volumes_refused(pod, 'context deadline exceeded')
        if self._settled:
            return self._settled.popleft()
        popped = self.queue.pop()
        return None if popped is None else self._decide(popped)

    def _decide(self, pod: PodInfo) -> Decision:
        snapshot = self.cache.snapshot()
        result = self.framework.place(pod, snapshot)
        if isinstance(result, Placement):
            chosen = pod.at(result.node)
            self.queue.remove(pod.uid)
            self.cache.nominate(None, pod.uid)
            self.cache.assume(chosen)
            return self._bind_volumes(chosen) if chosen.claims else Bind(chosen)
        self.queue.unfit(pod.uid, result.plugins)
        if not result.total:
            return Failure(pod, NO_NODES)
        room = preempt(pod, snapshot, result, self.framework, self._budgets.values())
        if isinstance(room, Preemption):
            outranked = self._nominate(pod.with_room_on(room.node), snapshot)
            return Failure(pod, result.message(), room.node, room.victims, outranked)
        return Failure(pod, f'{result.message()} {room}', pod.nominated)

    def _bind_volumes(self, pod: PodInfo) -> Bind | BindVolumes:
        volumes = self.cache.volumes
        choice = volumes.needs(pod).on(self.cache.nodes[pod.node])
        assert not isinstance(choice, str), f'{pod.key} was placed on {pod.node}, where {choice}'
        if not choice:
            return Bind(pod)
        volumes.choose(pod.uid, choice)
        self._unsettled[pod.uid] = pod, float('inf')
        return BindVolumes(pod, choice)

    def _nominate(self, pod: PodInfo, snapshot: Snapshot) -> tuple[PodInfo, ...]:
        """From now on room is kept for `pod`; those of lower priority that waited there look for another place."""
        outranked = tuple(p for p in snapshot.nominated.get(pod.nominated, ()) if p.priority < pod.priority)
        for other in outranked:
            self._pending[other.uid] = other.with_room_on('')
            self._requeue(other.uid)
        self.cache.nominate(pod, pod.uid)
        return outranked

    def idle_s(self) -> float | None:
        """Seconds until `next` may have work by the passing of time alone; None: only an event brings work."""
        if self._settled:
            return 0.0
        due = [t for t in (self.queue.next_due(), self.cache.next_expiry()) if t is not None]
        due += [until for _, until in self._unsettled.values() if until != float('inf')]
        return max(0.0, min(due) - self._now()) if due else None

    def bound(self, pod: PodInfo) -> None:
        """The API has accepted the binding."""
        self.cache.confirm_soon(pod.uid, self._now() + ASSUMPTION_S)

    def volumes_written(self, pod: PodInfo) -> None:
        """The API has accepted what was chosen for the claims; their binder has to act on it."""
        if pod.uid in self._unsettled:
            self._unsettled[pod.uid] = pod, self._now() + VOLUMES_S
            self._look_at_volumes()

    def volumes_refused(self, pod: PodInfo, why: str) -> None:
        """What was chosen for the claims does not come true."""
        if pod.uid in self._unsettled:
            self.unbound(pod)
            self._settled.append(Failure(pod.at(''), f'binding volumes: {why}', pod.nominated))
            self._wake()

    def unbound(self, pod: PodInfo) -> None:
        """The binding certainly did not happen: the pod goes back into the queue, if it still wants a node."""
        self._forget_volumes(pod.uid)
        if self.cache.forget(pod.uid) is not None:
            self._happened(Happening.POD_DELETE)
        self._requeue(pod.uid)

    def lost(self, pod: PodInfo) -> None:
        """The pod does not exist any more."""
        self._pod_gone(pod.uid)

    def pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is None or is_pod_finished(new):
            gone = new or old
            if gone is not None:
                self._pod_gone(gone['metadata'].get('uid', ''))
        elif (new.get('spec') or {}).get('nodeName'):
            self._pod_placed(old, new)
        elif (new['spec'].get('schedulerName') or 'default-scheduler') != self.name:
            self._pod_gone(new['metadata'].get('uid', ''))  # another scheduler's: nothing of it is worth reading
        else:
            self._pod_pending(parse_pod(new))

    def _pod_gone(self, uid: str) -> None:
        waited = self._pending.pop(uid, None)
        self._forget_volumes(uid)
        self.queue.remove(uid)
        self.cache.nominate(None, uid)
        if self.cache.remove(uid) is not None or (waited is not None and waited.nominated):
            self._happened(Happening.POD_DELETE)

    def _pod_placed(self, old: Obj | None, new: Obj) -> None:
        uid = new['metadata'].get('uid', '')
        before = self.cache.placed(uid)
        if before is not None and old is not None and not self.cache.assumed(uid) and _same_for_us(old, new):
            return
        self._pending.pop(uid, None)
        self._forget_volumes(uid)
        self.queue.remove(uid)
        self.cache.nominate(None, uid)
        pod = parse_pod(new)
        fresh = before is None or self.cache.assumed(uid)
        self.cache.place(pod)
        if fresh:
            self._happened(Happening.POD_ADD)
        elif before is not None and (pod.cpu < before.cpu or pod.memory < before.memory):
            self._happened(Happening.POD_DELETE)
        else:
            self._happened(Happening.POD_LABELS)

    def _pod_pending(self, pod: PodInfo) -> None:
        if pod.deleting or pod.scheduler != self.name:
            self._pod_gone(pod.uid)
            return
        self._pending[pod.uid] = pod
        if self.cache.assumed(pod.uid):
            return
        self.cache.nominate(pod, pod.uid)
        self.queue.put(pod)
        self._wake()

    def node_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            if old is not None:
                self.cache.remove_node(old['metadata']['name'])
            return
        before = self.cache.nodes.get(new['metadata']['name'])
        node = self.cache.set_node(new)
        if before is None:
            self._happened(Happening.NODE_ADD)
            return
        if before.labels != node.labels:
            self._happened(Happening.NODE_LABELS)
        if (before.hard_taints, before.unschedulable) != (node.hard_taints, node.unschedulable):
            self._happened(Happening.NODE_TAINTS)
        room = (node.cpu, node.memory, node.ephemeral, node.pods_max, node.extended)
        if room != (before.cpu, before.memory, before.ephemeral, before.pods_max, before.extended):
            self._happened(Happening.NODE_ALLOCATABLE)

    def namespace_changed(self, old: Obj | None, new: Obj | None) -> None:
        obj = new or old
        if obj is not None:
            self.cache.set_namespace(obj['metadata']['name'], (new['metadata'].get('labels') or {}) if new else None)
            self._happened(Happening.NAMESPACE)

    def service_changed(self, old: Obj | None, new: Obj | None) -> None:
        obj = new or old
        if obj is not None:
            selector = ((new.get('spec') or {}).get('selector') or {}) if new else None
            self.cache.workloads.set_service(obj['metadata']['namespace'], obj['metadata']['name'], selector)

    def owner_changed(self, kind: str, old: Obj | None, new: Obj | None) -> None:
        """A ReplicaSet, StatefulSet (label selector) or ReplicationController (plain map)."""
        obj = new or old
        if obj is None:
            return
        selector = ((new.get('spec') or {}).get('selector') or {}) if new else None
        if selector is not None and kind == 'ReplicationController':
            selector = {'matchLabels': selector}
        self.cache.workloads.set_owner(kind, obj['metadata']['namespace'], obj['metadata']['name'], selector)

    def claim_changed(self, old: Obj | None, new: Obj | None) -> None:
        self._storage_changed(self.cache.volumes.claims, key_of, old, new)
        if old is None or new is None or not annotations_of(old).get(SELECTED_NODE):
            return
        if not annotations_of(new).get(SELECTED_NODE) and not is_bound(new):  # so provisioners give a node back
            for uid in self.cache.volumes.waiting_for(new):
                self.volumes_refused(self._unsettled[uid][0], f'provisioning failed for PVC "{name_of(new)}"')

    def volume_changed(self, old: Obj | None, new: Obj | None) -> None:
        self._storage_changed(self.cache.volumes.volumes, name_of, old, new)

    def class_changed(self, old: Obj | None, new: Obj | None) -> None:
        self._storage_changed(self.cache.volumes.classes, name_of, old, new)

    def driver_changed(self, old: Obj | None, new: Obj | None) -> None:
        self._storage_changed(self.cache.volumes.drivers, name_of, old, new)

    def capacity_changed(self, old: Obj | None, new: Obj | None) -> None:
        self._storage_changed(self.cache.volumes.capacities, key_of, old, new)

    def _storage_changed(
        self, known: dict[str, Obj], key: Callable[[Obj], str], old: Obj | None, new: Obj | None
    ) -> None:
        if new is not None:
            known[key(new)] = new
        elif old is not None:
            known.pop(key(old), None)
        self._look_at_volumes()
        self._happened(Happening.STORAGE)

    def _look_at_volumes(self) -> None:
        """The pods whose claims are all bound by now are next."""
        for pod, until in [*self._unsettled.values()]:
            if until != float('inf') and self.cache.volumes.bound(pod):
                self._forget_volumes(pod.uid)
                self._settled.append(Bind(pod))
                self._wake()

    def _forget_volumes(self, uid: str) -> None:
        if self._unsettled.pop(uid, None) is not None:
            self.cache.volumes.forget(uid)

    def budget_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            self._budgets[key_of(new)] = parse_budget(new)
        elif old is not None:
            self._budgets.pop(key_of(old), None)

    def _requeue(self, uid: str) -> None:
        pod = self._pending.get(uid)
        if pod is not None:
            self.cache.nominate(pod, uid)
            self.queue.retry(pod)
            self._wake()

    def _happened(self, what: Happening) -> None:
        self.queue.happened(what)
        self._wake()


def _same_for_us(old: Obj, new: Obj) -> bool:
    """Nothing that the scheduler reads of a placed pod differs: most updates are the kubelet's status."""
    before, after = old['metadata'], new['metadata']
    return (
        before.get('labels') == after.get('labels')
        and before.get('deletionTimestamp') == after.get('deletionTimestamp')
        and (old.get('status') or {}).get('startTime') == (new.get('status') or {}).get('startTime')
        and old.get('spec') == new.get('spec')
        and held(old) == held(new)
    )
