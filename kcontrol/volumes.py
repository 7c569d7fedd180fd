"""What claims and volumes are to each other: names, sizes, who fits whom. Pure.

Source: pkg/controller/volume/persistentvolume/index.go (findBestMatchForClaim), component-helpers storage/volume.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from kclient.model import Obj
from kcontrol.scheduler.terms import parse_node_term
from kcore.meta import quantity
from kcore.meta.objects import annotations_of, deleting, get_path, labels_of, name_of, namespace_of, uid_of
from kcore.meta.selectors import from_label_selector

COMPLETED = 'pv.kubernetes.io/bind-completed'
BY_CONTROLLER = 'pv.kubernetes.io/bound-by-controller'
SELECTED_NODE = 'volume.kubernetes.io/selected-node'
CLASS_ANNOTATION = 'volume.beta.kubernetes.io/storage-class'
DELAYED = 'WaitForFirstConsumer'
"""The binding mode of classes whose claims are bound with the placement of a pod."""


def claims_of(pod: Obj) -> list[str]:
    """Names of the claims that a pod uses, those of its ephemeral volumes included."""
    return [name for name, _ in claims_by_origin(pod)]


def claims_by_origin(pod: Obj) -> Iterable[tuple[str, bool]]:
    """Names of claims, and whether each is made for this pod (an ephemeral volume)."""
    for volume in (pod.get('spec') or {}).get('volumes') or ():
        if volume.get('persistentVolumeClaim'):
            yield str(volume['persistentVolumeClaim'].get('claimName')), False
        elif volume.get('ephemeral'):
            yield f'{name_of(pod)}-{volume.get("name")}', True


def class_of(obj: Obj) -> str:
    return str(annotations_of(obj).get(CLASS_ANNOTATION) or get_path(obj, 'spec.storageClassName') or '')


def refers_to(volume: Obj, claim: Obj) -> bool:
    """Whether the volume is reserved for this claim; one without a uid was reserved by a person."""
    ref = get_path(volume, 'spec.claimRef') or {}
    named = (ref.get('namespace'), ref.get('name')) == (namespace_of(claim), name_of(claim))
    return named and ref.get('uid') in (None, '', uid_of(claim))


def mismatch(volume: Obj, claim: Obj) -> str:
    """Why the volume cannot serve the claim, as the API's users read it; empty when it can."""
    spec, wanted = volume.get('spec') or {}, claim.get('spec') or {}
    if deleting(volume):
        return f'the volume is marked for deletion "{name_of(volume)}"'
    if size_of(volume) < asked_of(claim):
        return 'requested PV is too small'
    if class_of(volume) != class_of(claim):
        return 'storageClassName does not match'
    return _unsuited(spec, wanted)


def _unsuited(spec: Obj, wanted: Obj) -> str:
    """What no reservation makes good: (spec of a volume, spec of a claim)."""
    if _mode(spec) != _mode(wanted):
        return 'incompatible volumeMode'
    if not set(wanted.get('accessModes') or ()) <= set(spec.get('accessModes') or ()):
        return 'incompatible accessMode'
    if (spec.get('volumeAttributesClassName') or '') != (wanted.get('volumeAttributesClassName') or ''):
        return 'incompatible volumeAttributesClassName'
    return ''


def _mode(spec: Obj) -> str:
    return str(spec.get('volumeMode') or 'Filesystem')


def size_of(volume: Obj) -> Decimal:
    return quantity.parse(get_path(volume, 'spec.capacity.storage') or '0')


def asked_of(claim: Obj) -> Decimal:
    return quantity.parse(get_path(claim, 'spec.resources.requests.storage') or '0')


def reserved_for(claim: Obj, volumes: Iterable[Obj]) -> Obj | None:
    """The volume that was reserved for the claim, whatever its class and labels."""
    for volume in volumes:
        if get_path(volume, 'spec.claimRef') is None or not refers_to(volume, claim) or deleting(volume):
            continue
        if size_of(volume) >= asked_of(claim) and not _unsuited(volume['spec'], claim['spec']):
            return volume
    return None


def matches(claim: Obj, volumes: Iterable[Obj]) -> list[Obj]:
    """The free volumes that fit, best first: those that offer the least beyond the access modes asked for, by size."""
    selector = get_path(claim, 'spec.selector')
    chosen = from_label_selector(selector) if selector is not None else None
    free = (
        v for v in volumes
        if get_path(v, 'spec.claimRef') is None and get_path(v, 'status.phase') in (None, 'Pending', 'Available')
        and not mismatch(v, claim) and (chosen is None or chosen.matches(labels_of(v)))
    )  # fmt: skip
    return sorted(free, key=lambda v: (len(v['spec'].get('accessModes') or ()), size_of(v), name_of(v)))


def admits(volume: Obj, node: str, labels: Mapping[str, str]) -> bool:
    """Whether the volume can be reached from the node of that name and those labels."""
    required = get_path(volume, 'spec.nodeAffinity.required')
    if not required:
        return True
    terms = map(parse_node_term, required.get('nodeSelectorTerms') or ())
    return any(term.matches(node, labels) for term in terms)


def reservation(volume: Obj, claim: Obj) -> Obj | None:
    """The patch that reserves the volume for the claim; None when it is reserved."""
    ref = get_path(volume, 'spec.claimRef') or {}
    if ref.get('uid') == uid_of(claim):
        return None
    # A reservation that a person made stays theirs: it is not dropped when the claim chooses otherwise.
    mark = {} if ref else {'metadata': {'annotations': {BY_CONTROLLER: 'yes'}}}
    return {'spec': {'claimRef': claim_ref(claim)}, **mark}


def claim_ref(claim: Obj) -> Obj:
    return {
        'apiVersion': 'v1', 'kind': 'PersistentVolumeClaim', 'namespace': namespace_of(claim), 'name': name_of(claim),
        'uid': uid_of(claim), 'resourceVersion': claim['metadata'].get('resourceVersion', ''),
    }  # fmt: skip
