"""Template hash, revisions and the annotations that `kubectl rollout` reads. Pure.

Source: pkg/controller/deployment/util/deployment_util.go. Differs: the hash is SHA-256 of the template's canonical JSON
(upstream hashes a Go memory dump), so ReplicaSet names differ from those that upstream would choose.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

from kclient.model import Obj
from kcore.meta.objects import annotations_of

HASH_LABEL = 'pod-template-hash'
REVISION = 'deployment.kubernetes.io/revision'
REVISION_HISTORY = 'deployment.kubernetes.io/revision-history'
DESIRED = 'deployment.kubernetes.io/desired-replicas'
MAX = 'deployment.kubernetes.io/max-replicas'
_NOT_COPIED = frozenset({
    'kubectl.kubernetes.io/last-applied-configuration', REVISION, REVISION_HISTORY, DESIRED, MAX,
    'deprecated.deployment.rollback.to',
})  # fmt: skip
_ALPHABET = 'bcdfghjklmnpqrstvwxz2456789'


def template_hash(template: Obj, collisions: int) -> str:
    """Ten characters without vowels, so that no word can appear."""
    text = json.dumps(template, sort_keys=True, separators=(',', ':')) + (str(collisions) if collisions else '')
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], 'big')
    return ''.join(_ALPHABET[number // 27**i % 27] for i in range(10))


def same_template(rs: Obj, template: Obj) -> bool:
    """Equal but for the hash label."""
    return _unhashed((rs.get('spec') or {}).get('template') or {}) == _unhashed(template)


def _unhashed(template: Obj) -> Obj:
    meta = template.get('metadata') or {}
    labels = {k: v for k, v in (meta.get('labels') or {}).items() if k != HASH_LABEL}
    rest = {k: v for k, v in meta.items() if k not in ('labels', 'creationTimestamp') and v not in (None, {})}
    return {**template, 'metadata': rest | ({'labels': labels} if labels else {})}


def by_age(sets: Iterable[Obj]) -> list[Obj]:
    """Oldest first; the name decides between equals."""
    return sorted(sets, key=lambda rs: (rs['metadata'].get('creationTimestamp') or '', rs['metadata']['name']))


def revision(obj: Obj) -> int:
    """0 when there is none, or when it is no number."""
    try:
        return int(annotations_of(obj).get(REVISION, '0'))
    except ValueError:
        return 0


def next_revision(old: Sequence[Obj]) -> int:
    return max((revision(rs) for rs in old), default=0) + 1


def scale_annotations(replicas: int, surge: int) -> dict[str, str]:
    """What a ReplicaSet remembers of its Deployment's size, for proportional scaling."""
    return {DESIRED: str(replicas), MAX: str(replicas + surge)}


def new_set_annotations(deployment: Obj, rs: Obj | None, wanted_revision: int) -> dict[str, str]:
    """Annotations of the newest ReplicaSet; `rs` None when it is about to be created."""
    held = dict(annotations_of(rs)) if rs is not None else {}
    held |= {k: v for k, v in annotations_of(deployment).items() if k not in _NOT_COPIED}
    before = held.get(REVISION)
    if rs is None or revision(rs) < wanted_revision:
        held[REVISION] = str(wanted_revision)
        if before:
            past = [r for r in held.get(REVISION_HISTORY, '').split(',') if r]
            held[REVISION_HISTORY] = ','.join([*past, before])
    return held
