"""Claims, volumes and storage classes: where the data of a pod is, or can be. Pure.

A claim that waits for its first consumer gets its volume, or the node that a volume is made for, with the placement of
a pod. Until the informers show that, the choice is remembered, so that no other pod counts on the same volume.
Source: pkg/scheduler/framework/plugins/volumebinding/binder.go, volume_binding.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kcontrol.scheduler.nodeinfo import NodeInfo
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.terms import Labels
from kcontrol.volumes import COMPLETED, DELAYED, SELECTED_NODE, admits, asked_of, class_of, matches, reserved_for
from kcore.meta import quantity
from kcore.meta.objects import annotations_of, controller_of, deleting, get_path, key_of, name_of, uid_of
from kcore.meta.selectors import from_label_selector

Obj = dict[str, Any]

NO_PROVISIONER = 'kubernetes.io/no-provisioner'
NODE_CONFLICT = 'node(s) had volume node affinity conflict'
BIND_CONFLICT = "node(s) didn't find available persistent volumes to bind"
NO_SPACE = 'node(s) did not have enough free storage'
NO_VOLUME = 'node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)'


@dataclass(frozen=True, slots=True)
class Choice:
    """What has to be written, and to come true, before a pod can be bound to a node."""

    node: str
    bind: tuple[tuple[Obj, Obj], ...] = ()
    """Volumes, each with the claim that is to get it."""
    provision: tuple[Obj, ...] = ()
    """Claims whose volume is to be made for the node."""

    def __bool__(self) -> bool:
        return bool(self.bind or self.provision)


@dataclass(frozen=True, slots=True)
class Delayed:
    """A claim that is bound with the placement of its pod."""

    claim: Obj
    node: str
    """Where its volume is being made already; empty: nowhere."""
    candidates: Sequence[Obj]
    """The volumes that would do, best first, wherever they are."""
    storage: Obj
    rooms: Sequence[Obj] | None
    """The CSIStorageCapacities in which it has room; None when nobody asks."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the claims of one pod ask of its node."""

    bound: tuple[Obj | None, ...]
    """The volumes of its bound claims; None for one that does not exist."""
    delayed: tuple[Delayed, ...]
    """By size, so that the small ones do not take the large volumes."""

    def on(self, node: NodeInfo) -> Choice | str:
        """What the pod needs to run there, or why it cannot."""
        if None in self.bound:
            return NO_VOLUME
        if not all(admits(v, node.name, node.labels) for v in self.bound if v is not None):
            return NODE_CONFLICT
        bind: list[tuple[Obj, Obj]] = []
        provision: list[Obj] = []
        for one in self.delayed:
            taken = {name_of(v) for v, _ in bind}
            free = (v for v in one.candidates if name_of(v) not in taken and admits(v, node.name, node.labels))
            if one.node and one.node != node.name:
                return BIND_CONFLICT
            if not one.node and (found := next(free, None)) is not None:
                bind.append((found, one.claim))
            elif not _can_be_made(one.storage, node.labels):
                return BIND_CONFLICT
            elif one.rooms is not None and not any(_reaches(room, node.labels) for room in one.rooms):
                return NO_SPACE
            else:
                provision.append(one.claim)
        return Choice(node.name, tuple(bind), tuple(provision))


def _can_be_made(storage: Obj, labels: Labels) -> bool:
    if storage.get('provisioner') in (None, '', NO_PROVISIONER):
        return False
    terms = storage.get('allowedTopologies') or ()
    return not terms or any(
        all(labels.get(e['key']) in e['values'] for e in term.get('matchLabelExpressions') or ()) for term in terms
    )


def _reaches(room: Obj, labels: Labels) -> bool:
    topology = room.get('nodeTopology')
    return topology is not None and from_label_selector(topology).matches(labels)


@dataclass(slots=True)
class Volumes:
    """What the informers show, and what was chosen for pods that are not bound yet."""

    claims: dict[str, Obj] = field(default_factory=dict)
    """By namespace/name; all others by name."""
    volumes: dict[str, Obj] = field(default_factory=dict)
    classes: dict[str, Obj] = field(default_factory=dict)
    drivers: dict[str, Obj] = field(default_factory=dict)
    capacities: dict[str, Obj] = field(default_factory=dict)
    _chosen: dict[str, Choice] = field(default_factory=dict)
    """By the uid of the pod."""

    def obstacle(self, pod: PodInfo) -> str:
        """Why no node whatever will do; empty when that depends on the node."""
        for name, ephemeral in pod.claims:
            claim = self.claims.get(f'{pod.namespace}/{name}')
            if claim is None:
                what = f'persistentvolumeclaim "{name}"'
                maker = 'waiting for ephemeral volume controller to create the'
                return f'{maker} {what}' if ephemeral else f'{what} not found'
            if get_path(claim, 'status.phase') == 'Lost':
                lost = get_path(claim, 'spec.volumeName') or ''
                return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{lost}"'
            if deleting(claim):
                return f'persistentvolumeclaim "{name}" is being deleted'
            if ephemeral and (controller_of(claim) or {}).get('uid') != pod.uid:
                return f'PVC {key_of(claim)} was not created for pod {pod.key} (pod is not owner)'
        if any(not is_bound(claim) and not self._is_delayed(claim) for claim in self._claims(pod)):
            return 'pod has unbound immediate PersistentVolumeClaims'
        return ''

    def needs(self, pod: PodInfo) -> Needs:
        """To be asked only when there is no obstacle."""
        claims = list(self._claims(pod))
        bound = tuple(self.volumes.get(claim['spec']['volumeName']) for claim in claims if is_bound(claim))
        waiting = sorted((claim for claim in claims if not is_bound(claim)), key=asked_of)
        return Needs(bound, tuple(map(self._delayed, waiting)))

    def choose(self, uid: str, choice: Choice) -> None:
        self._chosen[uid] = choice

    def forget(self, uid: str) -> None:
        self._chosen.pop(uid, None)

    def bound(self, pod: PodInfo) -> bool:
        """Whether all of its claims are."""
        claims = list(self._claims(pod))
        return len(claims) == len(pod.claims) and all(map(is_bound, claims))

    def waiting_for(self, claim: Obj) -> list[str]:
        """Uids of the pods for which a volume is to be made for this claim."""
        uid = uid_of(claim)
        return [pod for pod, choice in self._chosen.items() if any(uid_of(one) == uid for one in choice.provision)]

    def _claims(self, pod: PodInfo) -> Iterable[Obj]:
        found = (self.claims.get(f'{pod.namespace}/{name}') for name, _ in pod.claims)
        return (claim for claim in found if claim is not None)

    def _is_delayed(self, claim: Obj) -> bool:
        """One that names its volume is its binder's, whatever its class."""
        storage = self.classes.get(class_of(claim)) or {}
        return storage.get('volumeBindingMode') == DELAYED and not get_path(claim, 'spec.volumeName')

    def _delayed(self, claim: Obj) -> Delayed:
        storage = self.classes[class_of(claim)]
        node, candidates = annotations_of(claim).get(SELECTED_NODE) or '', self._candidates(claim)
        for choice in self._chosen.values():
            for volume, other in choice.bind:
                if uid_of(other) == uid_of(claim):
                    candidates = [volume]
            if any(uid_of(other) == uid_of(claim) for other in choice.provision):
                node = choice.node
        return Delayed(claim, node, candidates, storage, self._rooms(claim, storage))

    def _candidates(self, claim: Obj) -> list[Obj]:
        reserved = reserved_for(claim, self.volumes.values())
        if reserved is not None:
            return [reserved]
        taken = {name_of(volume) for choice in self._chosen.values() for volume, _ in choice.bind}
        return matches(claim, (v for name, v in self.volumes.items() if name not in taken))

    def _rooms(self, claim: Obj, storage: Obj) -> list[Obj] | None:
        driver = self.drivers.get(str(storage.get('provisioner')))
        asked = asked_of(claim)
        if driver is None or not get_path(driver, 'spec.storageCapacity') or not asked:
            return None
        rooms = (c for c in self.capacities.values() if c.get('storageClassName') == name_of(storage))
        return [c for c in rooms if quantity.parse(c.get('maximumVolumeSize') or c.get('capacity') or '-1') >= asked]


def is_bound(claim: Obj) -> bool:
    """Its binder has finished."""
    return bool(get_path(claim, 'spec.volumeName')) and COMPLETED in annotations_of(claim)
