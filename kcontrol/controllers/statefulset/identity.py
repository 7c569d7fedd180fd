"""Names, pods and claims of a StatefulSet's ordinals. Pure.

Source: pkg/controller/statefulset/stateful_set_utils.go.
"""

from __future__ import annotations

from collections.abc import Iterable

from kclient.model import Obj
from kcontrol.controllers.replicaset.plan import pod_from_template
from kcontrol.kinds import STATEFULSETS
from kcontrol.revisions import HASH_LABEL, restored
from kcore.meta.gvk import PODS
from kcore.meta.objects import labels_of, name_of, namespace_of, owner_ref, uid_of

POD_NAME, POD_INDEX = 'statefulset.kubernetes.io/pod-name', 'apps.kubernetes.io/pod-index'


def start_of(owner: Obj) -> int:
    return int((owner['spec'].get('ordinals') or {}).get('start') or 0)


def wanted(owner: Obj) -> range:
    """The ordinals that should have a pod."""
    return range(start_of(owner), start_of(owner) + int(owner['spec'].get('replicas', 1)))


def ordinal_of(owner: Obj, pod: Obj) -> int | None:
    """None when the pod's name is not one that this set gives."""
    prefix, _, number = name_of(pod).rpartition('-')
    return int(number) if prefix == name_of(owner) and number.isdigit() and str(int(number)) == number else None


def revision_of(pod: Obj) -> str:
    """Name of the ControllerRevision that the pod was made from."""
    return labels_of(pod).get(HASH_LABEL, '')


def claim_templates(owner: Obj) -> list[Obj]:
    return owner['spec'].get('volumeClaimTemplates') or []


def claim_name(template: Obj, owner: Obj, ordinal: int) -> str:
    return f'{name_of(template)}-{name_of(owner)}-{ordinal}'


def pod_for(owner: Obj, revision: Obj, ordinal: int) -> Obj:
    """The pod of an ordinal, from the template that `revision` holds."""
    template = restored(owner, revision)['spec']['template']
    pod = pod_from_template(owner, owner_ref(owner, STATEFULSETS), template)
    meta, name = pod['metadata'], f'{name_of(owner)}-{ordinal}'
    del meta['generateName']
    meta['name'] = name
    identity = {HASH_LABEL: name_of(revision), POD_NAME: name, POD_INDEX: str(ordinal)}
    meta['labels'] = {**meta.get('labels', {}), **identity}
    service = owner['spec'].get('serviceName')
    spec = {**pod['spec'], 'hostname': name} | ({'subdomain': service} if service else {})
    claims = claim_templates(owner)
    if claims:
        names = {name_of(t) for t in claims}
        own = [v for v in spec.get('volumes') or () if v.get('name') not in names]
        given = [
            {'name': name_of(t), 'persistentVolumeClaim': {'claimName': claim_name(t, owner, ordinal)}} for t in claims
        ]
        spec['volumes'] = [*given, *own]
    return {**pod, 'spec': spec}


def claims_for(owner: Obj, ordinal: int) -> list[Obj]:
    """The claims of an ordinal as they are created; they outlive the pod."""
    selector = (owner['spec'].get('selector') or {}).get('matchLabels') or {}
    made: list[Obj] = []
    for template in claim_templates(owner):
        meta = template.get('metadata') or {}
        named = {
            'name': claim_name(template, owner, ordinal),
            'namespace': namespace_of(owner),
            'labels': {**(meta.get('labels') or {}), **selector},
        } | ({'annotations': meta['annotations']} if meta.get('annotations') else {})
        claim = {'apiVersion': 'v1', 'kind': 'PersistentVolumeClaim', 'metadata': named, 'spec': template['spec']}
        made.append(claim)
    return made


def retention(owner: Obj) -> tuple[bool, bool]:
    """(claims go with the set, claims go with a pod that is scaled away)."""
    policy = owner['spec'].get('persistentVolumeClaimRetentionPolicy') or {}
    return policy.get('whenDeleted') == 'Delete', policy.get('whenScaled') == 'Delete'


def claim_owners(owner: Obj, claim: Obj, pod: Obj | None, *, condemned: bool) -> list[Obj] | None:
    """`ownerReferences` of a claim as the retention policy wants them; None when they are so already.

    pod: the one that uses the claim, if there is one. A claim whose pod is scaled away falls with it.
    """
    with_set, with_pod = retention(owner)
    held: list[Obj] = claim['metadata'].get('ownerReferences') or []
    pod_uids = {uid_of(pod)} if pod is not None else set()
    ours = {uid_of(owner)} | pod_uids
    kept = [r for r in held if r.get('uid') not in ours and not _stale(owner, r, claim)]
    if with_pod and condemned and pod is not None:
        kept.append({'apiVersion': 'v1', 'kind': PODS.kind, 'name': name_of(pod), 'uid': uid_of(pod)})
    elif with_set:
        api, kind = STATEFULSETS.api_version, STATEFULSETS.kind
        kept.append({'apiVersion': api, 'kind': kind, 'name': name_of(owner), 'uid': uid_of(owner)})
    return None if _identities(kept) == _identities(held) else kept


def _stale(owner: Obj, ref: Obj, claim: Obj) -> bool:
    """A reference to an earlier pod of the same name: the ordinal was scaled away and is back."""
    name = str(ref.get('name') or '')
    return (
        ref.get('kind') == PODS.kind and name_of(claim).endswith(f'-{name}') and name.startswith(f'{name_of(owner)}-')
    )


def _identities(refs: Iterable[Obj]) -> set[tuple[str, str]]:
    return {(str(r.get('kind')), str(r.get('uid'))) for r in refs}
