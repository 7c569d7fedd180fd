"""Which volume a claim gets, and the phases of both. Pure.

The binding is written in an order that a crash cannot break: first the volume names the claim (by uid), which is the
decision; then the claim names the volume. Whoever finds half of it completes it.
Source: pkg/controller/volume/persistentvolume/pv_controller.go, index.go (findBestMatchForClaim).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from kclient.model import Obj
from kcore.meta import quantity
from kcore.meta.objects import annotations_of, deleting, get_path, labels_of, name_of, namespace_of, uid_of
from kcore.meta.selectors import from_label_selector

COMPLETED = 'pv.kubernetes.io/bind-completed'
BY_CONTROLLER = 'pv.kubernetes.io/bound-by-controller'
PROVISIONED_BY = 'pv.kubernetes.io/provisioned-by'
SELECTED_NODE = 'volume.kubernetes.io/selected-node'
PROVISIONER = 'volume.kubernetes.io/storage-provisioner'
OLD_PROVISIONER = 'volume.beta.kubernetes.io/storage-provisioner'
CLASS_ANNOTATION = 'volume.beta.kubernetes.io/storage-class'
NO_PROVISIONER = 'kubernetes.io/no-provisioner'
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
    note: Note | None = None


def class_of(obj: Obj) -> str:
    return str(annotations_of(obj).get(CLASS_ANNOTATION) or get_path(obj, 'spec.storageClassName') or '')


def refers_to(volume: Obj, claim: Obj) -> bool:
    """Whether the volume is reserved for this claim; one without a uid was reserved by a person."""
    ref = get_path(volume, 'spec.claimRef') or {}
    named = (ref.get('namespace'), ref.get('name')) == (namespace_of(claim), name_of(claim))
    return named and ref.get('uid') in (None, '', uid_of(claim))


def fits(volume: Obj, claim: Obj) -> bool:
    """Whether the volume could serve the claim, its own reservation apart."""
    spec, wanted = volume.get('spec') or {}, claim.get('spec') or {}
    if deleting(volume) or class_of(volume) != class_of(claim):
        return False
    if (spec.get('volumeMode') or 'Filesystem') != (wanted.get('volumeMode') or 'Filesystem'):
        return False
    if not set(wanted.get('accessModes') or ()) <= set(spec.get('accessModes') or ()):
        return False
    if (spec.get('volumeAttributesClassName') or '') != (wanted.get('volumeAttributesClassName') or ''):
        return False
    if size_of(volume) < quantity.parse(get_path(wanted, 'resources.requests.storage') or '0'):
        return False
    return wanted.get('selector') is None or from_label_selector(wanted['selector']).matches(labels_of(volume))


def size_of(volume: Obj) -> Decimal:
    return quantity.parse(get_path(volume, 'spec.capacity.storage') or '0')


def best_match(claim: Obj, volumes: Iterable[Obj]) -> Obj | None:
    """A volume reserved for the claim, else the smallest free one that fits."""
    free: list[Obj] = []
    for volume in volumes:
        if get_path(volume, 'spec.claimRef') is not None:
            if refers_to(volume, claim) and fits(volume, claim):
                return volume
        elif fits(volume, claim) and get_path(volume, 'status.phase') in (None, 'Pending', 'Available'):
            free.append(volume)
    return min(free, key=lambda v: (size_of(v), name_of(v)), default=None)


def plan_claim(claim: Obj, volumes: Mapping[str, Obj], storage: Obj | None) -> ClaimPlan:
    """volumes: all, by name. storage: the claim's StorageClass, if it exists."""
    if deleting(claim) and not get_path(claim, 'spec.volumeName'):
        return ClaimPlan()
    name = str(get_path(claim, 'spec.volumeName') or '')
    if annotations_of(claim).get(COMPLETED):
        return _bound(claim, volumes.get(name))
    if not name:
        return _unbound(claim, volumes, storage)
    volume = volumes.get(name)
    if volume is None:
        return ClaimPlan('Pending')
    if get_path(volume, 'spec.claimRef') is None:
        if fits(volume, claim):
            return ClaimPlan('Bound', volume)
        return ClaimPlan('Pending', note=('Warning', 'VolumeMismatch', f'Cannot bind to requested volume "{name}"'))
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


def _unbound(claim: Obj, volumes: Mapping[str, Obj], storage: Obj | None) -> ClaimPlan:
    waits = storage is not None and storage.get('volumeBindingMode') == 'WaitForFirstConsumer'
    reserved = next((v for v in volumes.values() if get_path(v, 'spec.claimRef') and refers_to(v, claim)), None)
    if waits and reserved is None and not annotations_of(claim).get(SELECTED_NODE):
        text = 'waiting for first consumer to be created before binding'
        return ClaimPlan('Pending', note=('Normal', 'WaitForFirstConsumer', text))
    found = best_match(claim, volumes.values())
    if found is not None:
        return ClaimPlan('Bound', found)
    if not class_of(claim):
        text = 'no persistent volumes available for this claim and no storage class is set'
        return ClaimPlan('Pending', note=('Normal', 'FailedBinding', text))
    if storage is None:
        text = f'storageclass.storage.k8s.io "{class_of(claim)}" not found'
        return ClaimPlan('Pending', note=('Warning', 'ProvisioningFailed', text))
    maker = str(storage.get('provisioner') or '')
    if maker == NO_PROVISIONER:
        text = f'no volume plugin matched name: {maker}'
        return ClaimPlan('Pending', note=('Warning', 'ProvisioningFailed', text))
    text = (
        f"Waiting for a volume to be created either by the external provisioner '{maker}' or manually by the system "
        'administrator. If volume creation is delayed, please verify that the provisioner is running and correctly '
        'registered.'
    )
    return ClaimPlan('Pending', provisioner=maker, note=('Normal', 'ExternalProvisioning', text))


@dataclass(frozen=True, slots=True)
class VolumePlan:
    phase: Phase
    unbind: bool = False
    """The claim chose another volume: drop what we wrote."""
    note: Note | None = None


def plan_volume(volume: Obj, claim: Obj | None) -> VolumePlan:
    """claim: the one that `spec.claimRef` names, if it exists."""
    ref = get_path(volume, 'spec.claimRef')
    if ref is None or not ref.get('uid'):
        return VolumePlan('Available')
    if claim is None or uid_of(claim) != ref['uid']:
        policy = get_path(volume, 'spec.persistentVolumeReclaimPolicy')
        if policy == 'Recycle':
            text = 'No recycler plugin found for the volume!'
            return VolumePlan('Failed', note=('Warning', 'VolumeRecycleFailed', text))
        if policy == 'Delete' and not annotations_of(volume).get(PROVISIONED_BY):
            text = 'no deletable volume plugin matched'
            return VolumePlan('Failed', note=('Warning', 'VolumeFailedDelete', text))
        return VolumePlan('Released')  # whoever provisioned it deletes it, when that is the policy
    chosen = get_path(claim, 'spec.volumeName')
    if not chosen or chosen == name_of(volume):
        return VolumePlan('Bound')
    return VolumePlan('Available', unbind=bool(annotations_of(volume).get(BY_CONTROLLER)))


def claim_ref(claim: Obj) -> Obj:
    return {
        'apiVersion': 'v1', 'kind': 'PersistentVolumeClaim', 'namespace': namespace_of(claim), 'name': name_of(claim),
        'uid': uid_of(claim), 'resourceVersion': claim['metadata'].get('resourceVersion', ''),
    }  # fmt: skip


def claim_status(claim: Obj, volume: Obj | None, phase: Phase) -> Obj:
    """The whole status. A claim that was bound keeps its capacity: growing it is the expander's."""
    old = claim.get('status') or {}
    if phase != 'Bound' or volume is None:
        kept = {k: v for k, v in old.items() if phase == 'Lost' or k not in ('accessModes', 'capacity')}
        return {**kept, 'phase': phase}
    capacity = old['capacity'] if old.get('phase') == 'Bound' and old.get('capacity') else volume['spec']['capacity']
    return {**old, 'phase': 'Bound', 'accessModes': volume['spec'].get('accessModes') or [], 'capacity': capacity}


def needs_growth(claim: Obj) -> bool:
    """A bound claim that asks for more than it has."""
    wanted, given = get_path(claim, 'spec.resources.requests.storage'), get_path(claim, 'status.capacity.storage')
    bound = get_path(claim, 'status.phase') == 'Bound'
    return bool(bound and wanted and given and quantity.parse(wanted) > quantity.parse(given))
