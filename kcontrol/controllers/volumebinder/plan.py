"""Which volume a claim gets, and the phases of both. Pure.

The binding is written in an order that a crash cannot break: first the volume names the claim (by uid), which is the
decision; then the claim names the volume. Whoever finds half of it completes it.
A claim that waits for its first consumer is given a volume for the node on which that one was placed.
Source: pkg/controller/volume/persistentvolume/pv_controller.go, index.go (findBestMatchForClaim).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kclient.model import Obj
from kcontrol.volumes import (
    BY_CONTROLLER,
    CLASS_ANNOTATION,
    COMPLETED,
    DELAYED,
    SELECTED_NODE,
    admits,
    class_of,
    matches,
    mismatch,
    refers_to,
    reserved_for,
)
from kcore.meta import quantity
from kcore.meta.objects import annotations_of, deleting, get_path, labels_of, name_of, uid_of

PROVISIONED_BY = 'pv.kubernetes.io/provisioned-by'
PROVISIONER = 'volume.kubernetes.io/storage-provisioner'
OLD_PROVISIONER = 'volume.beta.kubernetes.io/storage-provisioner'
DEFAULT_MARKS = ('storageclass.kubernetes.io/is-default-class', 'storageclass.beta.kubernetes.io/is-default-class')
BUILT_IN = 'kubernetes.io/'
"""Provisioners of that name would be part of the controller manager: there is none."""
Phase = Literal['Available', 'Bound', 'Released', 'Failed', 'Pending', 'Lost']
Note = tuple[str, str, str]
"""(type, reason, message) of an event."""


@dataclass(frozen=True, slots=True)
class ClaimPlan:
    """At most one of bind and provisioner."""

    phase: Phase | None = None
    """None: leave it."""
    bind: Obj | None = None
    """The volume to bind."""
    provisioner: str = ''
    """Who is asked to make a volume."""
    node: str = ''
    """Where it is to be; empty: anywhere, or where a scheduler has said already."""
    note: Note | None = None


def default_class(claim: Obj, classes: Iterable[Obj]) -> str:
    """The class that a claim without any is given: the newest default one; '' for a claim that has or wants none."""
    if get_path(claim, 'spec.storageClassName') is not None or CLASS_ANNOTATION in annotations_of(claim):
        return ''
    marked = [s for s in classes if any(annotations_of(s).get(m) == 'true' for m in DEFAULT_MARKS)]
    newest = max((str(s['metadata'].get('creationTimestamp') or '') for s in marked), default='')
    return min((name_of(s) for s in marked if (s['metadata'].get('creationTimestamp') or '') == newest), default='')


def plan_claim(
    claim: Obj,
    volumes: Mapping[str, Obj],
    storage: Obj | None,
    *,
    waiting: Sequence[str] = (),
    node: Obj | None = None,
) -> ClaimPlan:
    """volumes: all, by name. storage: the claim's StorageClass, if it exists.

    waiting: unplaced pods that use it. node: where one that uses it was placed.
    """
    if deleting(claim) and not get_path(claim, 'spec.volumeName'):
        return ClaimPlan()
    name = str(get_path(claim, 'spec.volumeName') or '')
    if annotations_of(claim).get(COMPLETED):
        return _bound(claim, volumes.get(name))
    if not name:
        if storage is not None and storage.get('volumeBindingMode') == DELAYED:
            return _awaiting(claim, volumes, storage, waiting, node)
        return _unbound(claim, reserved_for(claim, volumes.values()) or _best(claim, volumes.values()), storage)
    volume = volumes.get(name)
    if volume is None:
        return ClaimPlan('Pending')
    if get_path(volume, 'spec.claimRef') is None:
        if not (why := mismatch(volume, claim)):
            return ClaimPlan('Bound', volume)
        text = f'Cannot bind to requested volume "{name}": {why}'
        return ClaimPlan('Pending', note=('Warning', 'VolumeMismatch', text))
    if refers_to(volume, claim):
        return ClaimPlan('Bound', volume)
    text = f'volume "{name}" already bound to a different claim.'
    return ClaimPlan('Pending', note=('Warning', 'FailedBinding', text))


def _bound(claim: Obj, volume: Obj | None) -> ClaimPlan:
    if not get_path(claim, 'spec.volumeName'):
        text = 'Bound claim has lost reference to PersistentVolume. Data on the volume is lost!'
        return ClaimPlan('Lost', note=('Warning', 'ClaimLost', text))
    if volume is None:
        text = 'Bound claim has lost its PersistentVolume. Data on the volume is lost!'
        return ClaimPlan('Lost', note=('Warning', 'ClaimLost', text))
    if get_path(volume, 'spec.claimRef') is None or refers_to(volume, claim):
        return ClaimPlan('Bound', volume)
    text = 'Two claims are bound to the same volume, this one is bound incorrectly'
    return ClaimPlan('Lost', note=('Warning', 'ClaimMisbound', text))


def _awaiting(
    claim: Obj, volumes: Mapping[str, Obj], storage: Obj, waiting: Sequence[str], node: Obj | None
) -> ClaimPlan:
    """A claim that is bound only when it is known where it is needed."""
    found = reserved_for(claim, volumes.values())
    chosen = annotations_of(claim).get(SELECTED_NODE)
    if found is None and node is not None and not chosen:
        found = _best(claim, (v for v in volumes.values() if admits(v, name_of(node), labels_of(node))))
    if found is None and node is None and not chosen:
        return ClaimPlan('Pending', note=_awaited(waiting))
    step = _unbound(claim, found, storage)
    return replace(step, node=name_of(node)) if step.provisioner and node is not None and not chosen else step


def _best(claim: Obj, volumes: Iterable[Obj]) -> Obj | None:
    return next(iter(matches(claim, volumes)), None)


def _unbound(claim: Obj, found: Obj | None, storage: Obj | None) -> ClaimPlan:
    if found is not None:
        return ClaimPlan('Bound', found)
    if not class_of(claim):
        text = 'no persistent volumes available for this claim and no storage class is set'
        return ClaimPlan('Pending', note=('Normal', 'FailedBinding', text))
    if storage is None:
        text = f'storageclass.storage.k8s.io "{class_of(claim)}" not found'
        return ClaimPlan('Pending', note=('Warning', 'ProvisioningFailed', text))
    maker = str(storage.get('provisioner') or '')
    if maker.startswith(BUILT_IN):
        text = f'no volume plugin matched name: {maker}'
        return ClaimPlan('Pending', note=('Warning', 'ProvisioningFailed', text))
    text = (
        f"Waiting for a volume to be created either by the external provisioner '{maker}' or manually by the system "
        'administrator. If volume creation is delayed, please verify that the provisioner is running and correctly '
        'registered.'
    )
    return ClaimPlan('Pending', provisioner=maker, note=('Normal', 'ExternalProvisioning', text))


def _awaited(waiting: Sequence[str]) -> Note:
    if not waiting:
        return 'Normal', 'WaitForFirstConsumer', 'waiting for first consumer to be created before binding'
    pods = f'pod{"s" if len(waiting) > 1 else ""} {",".join(waiting)}'
    return 'Normal', 'WaitForPodScheduled', f'waiting for {pods} to be scheduled'


@dataclass(frozen=True, slots=True)
class VolumePlan:
    phase: Phase
    claim_ref: Obj | None = None
    """What `spec.claimRef` is to be; None: what it is."""
    unbind: bool = False
    """The claim chose another volume: drop the reference that we wrote."""
    note: Note | None = None


def plan_volume(volume: Obj, claim: Obj | None) -> VolumePlan:
    """claim: the one that `spec.claimRef` names, if it exists."""
    ref = get_path(volume, 'spec.claimRef')
    if ref is None or not ref.get('uid'):
        return VolumePlan('Available')
    if claim is None or uid_of(claim) != ref['uid']:
        return _released(volume)
    chosen = get_path(claim, 'spec.volumeName')
    if not chosen or chosen == name_of(volume):
        return VolumePlan('Bound')
    if annotations_of(volume).get(PROVISIONED_BY) and _policy(volume) == 'Delete':
        return _released(volume)  # it was made for this claim, and nobody needs it
    if annotations_of(volume).get(BY_CONTROLLER):
        return VolumePlan('Available', unbind=True)
    return VolumePlan('Available', claim_ref={k: v for k, v in ref.items() if k not in ('uid', 'resourceVersion')})


def _policy(volume: Obj) -> str:
    return str(get_path(volume, 'spec.persistentVolumeReclaimPolicy') or '')


def _released(volume: Obj) -> VolumePlan:
    """Nobody claims it any more. Whoever provisioned it deletes it, when that is the policy."""
    if _policy(volume) == 'Recycle':
        return VolumePlan('Failed', note=('Warning', 'VolumeFailedRecycle', 'No recycler plugin found for the volume!'))
    if _policy(volume) == 'Delete' and not annotations_of(volume).get(PROVISIONED_BY):
        what = f'error getting deleter volume plugin for volume "{name_of(volume)}"'
        text = f'{what}: no deletable volume plugin matched'
        return VolumePlan('Failed', note=('Warning', 'VolumeFailedDelete', text))
    return VolumePlan('Released')


def claim_status(claim: Obj, volume: Obj | None, phase: Phase) -> Obj:
    """The whole status. A claim that was bound keeps its capacity: growing it is the expander's."""
    old = claim.get('status') or {}
    if phase != 'Bound' or volume is None:
        return {k: v for k, v in old.items() if k not in ('accessModes', 'capacity')} | {'phase': phase}
    capacity = old['capacity'] if old.get('phase') == 'Bound' and old.get('capacity') else volume['spec']['capacity']
    return {**old, 'phase': 'Bound', 'accessModes': volume['spec'].get('accessModes') or [], 'capacity': capacity}


def needs_growth(claim: Obj) -> bool:
    """A bound claim that asks for more than it has."""
    wanted, given = get_path(claim, 'spec.resources.requests.storage'), get_path(claim, 'status.capacity.storage')
    bound = get_path(claim, 'status.phase') == 'Bound'
    return bool(bound and wanted and given and quantity.parse(wanted) > quantity.parse(given))
