"""The history of a StatefulSet's or DaemonSet's template as ControllerRevisions. Pure; `history.sync` writes.

A revision's data is a strategic merge patch that puts its template back, which is what `kubectl rollout undo` sends.
A template that comes back takes up its old revision with a new number.
Source: pkg/controller/history/controller_history.go. Differs: the hash is SHA-256, as for ReplicaSets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from kclient.model import Obj
from kcontrol.controllers.deployment.history import template_hash
from kcontrol.kinds import CONTROLLERREVISIONS
from kcore.meta.gvk import Resource
from kcore.meta.objects import annotations_of, labels_of, name_of, namespace_of, owner_ref

HASH_LABEL = 'controller-revision-hash'
LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration'
DEFAULT_LIMIT = 10


def data_of(owner: Obj) -> Obj:
    """What a revision of `owner` as it is now holds."""
    return {'spec': {'template': {**owner['spec']['template'], '$patch': 'replace'}}}


def restored(owner: Obj, revision: Obj) -> Obj:
    """`owner` with the template that `revision` holds."""
    template = {k: v for k, v in revision['data']['spec']['template'].items() if k != '$patch'}
    return {**owner, 'spec': {**owner['spec'], 'template': template}}


def hash_of(revision: Obj) -> str:
    """The hash by which pods name the revision; old revisions only have it in their name."""
    return labels_of(revision).get(HASH_LABEL) or name_of(revision).rpartition('-')[2]


def by_number(revisions: Iterable[Obj]) -> list[Obj]:
    """Oldest first."""
    return sorted(revisions, key=lambda r: (int(r.get('revision') or 0), name_of(r)))


def next_number(revisions: Sequence[Obj]) -> int:
    return max((int(r.get('revision') or 0) for r in revisions), default=0) + 1


def equal_to(owner: Obj, revisions: Iterable[Obj]) -> Obj | None:
    """The newest revision that holds `owner`'s template."""
    wanted = data_of(owner)
    return next((r for r in reversed(by_number(revisions)) if r.get('data') == wanted), None)


def new_revision(owner: Obj, resource: Resource, number: int) -> Obj:
    """The object to create. Its name follows from the template, so that creating it twice is harmless."""
    collisions = int((owner.get('status') or {}).get('collisionCount') or 0)
    template = owner['spec']['template']
    mark = template_hash(template, collisions)
    labels = (template.get('metadata') or {}).get('labels') or {}
    annotations = {k: v for k, v in annotations_of(owner).items() if k != LAST_APPLIED}
    meta = {
        'name': f'{name_of(owner)[:223]}-{mark}',
        'namespace': namespace_of(owner),
        'labels': {**labels, HASH_LABEL: mark},
        'ownerReferences': [owner_ref(owner, resource)],
    }
    return {
        'apiVersion': CONTROLLERREVISIONS.api_version,
        'kind': CONTROLLERREVISIONS.kind,
        'metadata': meta | ({'annotations': annotations} if annotations else {}),
        'data': data_of(owner),
        'revision': number,
    }


def obsolete(owner: Obj, revisions: Iterable[Obj], live: Collection[str]) -> list[Obj]:
    """Revisions beyond `revisionHistoryLimit` that no pod uses, oldest first. live: names in use."""
    limit = int((owner.get('spec') or {}).get('revisionHistoryLimit', DEFAULT_LIMIT))
    unused = [r for r in by_number(revisions) if name_of(r) not in live]
    return unused[: max(0, len(unused) - limit)]
