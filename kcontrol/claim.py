"""Which dependents a controller counts as its own: adopt matching orphans, release those that match no more.

Pure; `adoption.carry_out` does the writing. Source: pkg/controller/controller_ref_manager.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kclient.model import Obj
from kcore.meta.objects import controller_of, deleting, labels_of
from kcore.meta.selectors import LabelSelector, from_label_selector, from_labels


def selector_of(owner: Obj) -> LabelSelector:
    """`spec.selector` of any workload: a LabelSelector, or the plain map of a ReplicationController."""
    raw = (owner.get('spec') or {}).get('selector')
    if owner.get('kind') == 'ReplicationController':
        return from_labels(raw)
    return from_label_selector(raw)


def selects(owner: Obj, obj: Obj) -> bool:
    """Whether `owner` would adopt `obj` by its labels. An empty selector adopts nothing."""
    selector = selector_of(owner)
    return not selector.empty and selector.matches(labels_of(obj))


@dataclass(frozen=True, slots=True)
class Claim:
    """What to do with the candidates."""

    keep: tuple[Obj, ...]
    adopt: tuple[Obj, ...]
    release: tuple[Obj, ...]


def plan_claim(owner: Obj, candidates: Iterable[Obj]) -> Claim:
    """Pure. `candidates`: objects of the namespace that `owner` owns or nobody owns."""
    uid = owner['metadata']['uid']
    keep: list[Obj] = []
    adopt: list[Obj] = []
    release: list[Obj] = []
    for obj in candidates:
        ref = controller_of(obj)
        if ref is not None and ref.get('uid') != uid:
            continue
        matches = selects(owner, obj)
        if ref is not None:
            (keep if matches else release).append(obj)
        elif matches and not deleting(owner) and not deleting(obj):
            adopt.append(obj)
    return Claim(tuple(keep), tuple(adopt), tuple(() if deleting(owner) else release))
