"""What one pass over a Deployment writes: new set, sizes, annotations, history, status. Pure.

One pass makes one kind of step; each write's event brings the next pass. All writes of ReplicaSets are conditional
on the version seen, so a stale cache leads to a conflict and a retry, never to a wrong size.
Source: pkg/controller/deployment/deployment_controller.go (syncDeployment), rolling.go, recreate.go, sync.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from kclient.model import Obj
from kcontrol.claim import selector_of
from kcontrol.controllers.deployment import history, rollout
from kcontrol.controllers.deployment.status import DONE, PROGRESSING, Text, complete, counts, deadline_s, plan_status
from kcore.meta.gvk import DEPLOYMENTS
from kcore.meta.objects import annotations_of, deleting, get_condition, name_of, owner_ref


@dataclass(frozen=True, slots=True)
class Scale:
    """Bring a ReplicaSet to `replicas`, with these annotations merged in."""

    rs: Obj
    replicas: int
    annotations: dict[str, str]

    @property
    def moves(self) -> bool:
        return rollout.size(self.rs) != self.replicas


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass, in the order of writing."""

    revision: str | None = None
    """Annotation to write on the Deployment."""
    update_new: Obj | None = None
    """(merge patch) annotations and minReadySeconds of the newest set."""
    create: Obj | None = None
    scale: tuple[Scale, ...] = ()
    delete: tuple[Obj, ...] = ()
    note: Text | None = None
    """A Progressing condition that this pass brings."""


@dataclass(frozen=True, slots=True)
class View:
    """What a pass works from."""

    deployment: Obj
    sets: tuple[Obj, ...]
    """All ReplicaSets that it controls."""
    old_pods_left: bool = False
    """A pod of an old set has not finished (for Recreate)."""

    @property
    def new(self) -> Obj | None:
        """The set with the present template; the oldest, should there be several."""
        template = self.deployment['spec']['template']
        return next((rs for rs in history.by_age(self.sets) if history.same_template(rs, template)), None)

    @property
    def old(self) -> list[Obj]:
        new = self.new
        return [rs for rs in self.sets if rs is not new]


def plan(view: View) -> Plan:
    """Decide one pass. A Deployment that is being deleted, or that selects everything, gets none."""
    d = view.deployment
    if deleting(d) or selector_of(d).empty:
        return Plan()
    note = _pause_note(d)
    if d['spec'].get('paused') or _resized(view):
        step = _with_revision(view, Plan(note=note, scale=_scales(view, rollout.proportional(d, view.new, view.old))))
        if d['spec'].get('paused'):
            step = replace(step, delete=cleanup(d, view.old))
        return step
    if view.new is None and (rollout.strategy(d) == 'RollingUpdate' or _recreate_clear(view)):
        return _with_new_set(view)
    step = _with_revision(view, Plan(note=note))
    if rollout.strategy(d) == 'RollingUpdate':
        sizes = rollout.rolling_step(d, view.new, view.old) if view.new is not None else {}
    else:
        sizes = rollout.recreate_step(d, view.new, view.old, view.old_pods_left) or {}
    step = replace(step, scale=_scales(view, sizes))
    figures = counts(d, view.new, view.sets)
    return replace(step, delete=cleanup(d, view.old)) if complete(d, figures) else step


def _recreate_clear(view: View) -> bool:
    return not view.old_pods_left and not any(rollout.size(rs) for rs in view.old)


def _resized(view: View) -> bool:
    """Some active set was last scaled for another size of the Deployment."""
    if rollout.strategy(view.deployment) != 'RollingUpdate' and any(rollout.size(rs) for rs in view.old):
        return False  # nothing to spread: the old sets go to zero anyway
    goal = str(rollout.wanted(view.deployment))
    marks = [annotations_of(rs).get(history.DESIRED) for rs in view.sets if rollout.size(rs)]
    return any(mark is not None and mark != goal for mark in marks)


def _scales(view: View, sizes: rollout.Sizes) -> tuple[Scale, ...]:
    """Only what differs, in size or in the remembered sizes."""
    d = view.deployment
    surge, _ = rollout.bounds(d)
    marks = history.scale_annotations(rollout.wanted(d), surge)
    by_name = {name_of(rs): rs for rs in view.sets}
    scales = [Scale(by_name[name], replicas, marks) for name, replicas in sizes.items()]
    return tuple(s for s in scales if s.moves or not marks.items() <= annotations_of(s.rs).items())


def _with_revision(view: View, step: Plan) -> Plan:
    """Keep the newest set's annotations and revision right (a roll back gives an old set a new revision)."""
    new, d = view.new, view.deployment
    if new is None:
        return step
    wanted = history.new_set_annotations(d, new, history.next_revision(view.old))
    change: Obj = {}
    if wanted != annotations_of(new):
        change['metadata'] = {'annotations': {k: v for k, v in wanted.items() if annotations_of(new).get(k) != v}}
    ready = int(d['spec'].get('minReadySeconds') or 0)
    if int(new['spec'].get('minReadySeconds') or 0) != ready:
        change['spec'] = {'minReadySeconds': ready}
    number = wanted[history.REVISION]
    note = step.note
    if note is None and deadline_s(d) is not None and get_condition(d, PROGRESSING) is None:
        note = ('True', 'FoundNewReplicaSet', f'Found new replica set "{name_of(new)}"')
    return replace(
        step,
        update_new=change or None,
        revision=number if annotations_of(d).get(history.REVISION) != number else None,
        note=note,
    )


def _with_new_set(view: View) -> Plan:
    d = view.deployment
    rs = new_set(d, view.old)
    number = str(history.next_revision(view.old))
    return Plan(
        create=rs,
        revision=number if annotations_of(d).get(history.REVISION) != number else None,
        note=('True', 'NewReplicaSetCreated', f'Created new replica set "{name_of(rs)}"'),
    )


def new_set(d: Obj, old: Sequence[Obj]) -> Obj:
    """The ReplicaSet for the present template, at its first size."""
    template = d['spec']['template']
    digest = history.template_hash(template, int((d.get('status') or {}).get('collisionCount') or 0))
    meta = template.get('metadata') or {}
    labels = {**(meta.get('labels') or {}), history.HASH_LABEL: digest}
    selector = d['spec']['selector']
    surge, _ = rollout.bounds(d)
    annotations = history.new_set_annotations(d, None, history.next_revision(old))
    annotations |= history.scale_annotations(rollout.wanted(d), surge)
    spec = {
        'replicas': rollout.new_set_size(d, None, old),
        'selector': {**selector, 'matchLabels': {**(selector.get('matchLabels') or {}), history.HASH_LABEL: digest}},
        'template': {**template, 'metadata': {**meta, 'labels': labels}},
    }
    if d['spec'].get('minReadySeconds'):
        spec['minReadySeconds'] = d['spec']['minReadySeconds']
    return {
        'apiVersion': 'apps/v1',
        'kind': 'ReplicaSet',
        'metadata': {
            'name': f'{name_of(d)}-{digest}',
            'namespace': d['metadata']['namespace'],
            'labels': labels,
            'annotations': annotations,
            'ownerReferences': [owner_ref(d, DEPLOYMENTS)],
        },
        'spec': spec,
    }


def _pause_note(d: Obj) -> Text | None:
    """Pausing and resuming reset the progress clock."""
    if deadline_s(d) is None:
        return None
    held = get_condition(d, PROGRESSING)
    if held is not None and held.get('reason') == 'ProgressDeadlineExceeded':
        return None
    was_paused = held is not None and held.get('reason') == 'DeploymentPaused'
    if d['spec'].get('paused') and not was_paused:
        return ('Unknown', 'DeploymentPaused', 'Deployment is paused')
    if not d['spec'].get('paused') and was_paused:
        return ('Unknown', 'DeploymentResumed', 'Deployment is resumed')
    return None


def cleanup(d: Obj, old: Sequence[Obj]) -> tuple[Obj, ...]:
    """Old sets beyond revisionHistoryLimit that are empty and have noticed it; the lowest revisions go."""
    limit = d['spec'].get('revisionHistoryLimit')
    if limit is None:
        return ()
    kept = [rs for rs in old if not deleting(rs)]
    excess = len(kept) - int(limit)
    if excess <= 0:
        return ()
    doomed = sorted(kept, key=lambda rs: (history.revision(rs), rs['metadata'].get('creationTimestamp') or ''))[:excess]
    return tuple(rs for rs in doomed if _forgettable(rs))


def _forgettable(rs: Obj) -> bool:
    seen = int((rs.get('status') or {}).get('observedGeneration') or 0)
    return not rollout.size(rs) and not rollout.observed(rs, 'replicas') and rs['metadata'].get('generation', 0) <= seen


def next_status(view: View, now: datetime, note: Text | None) -> Obj:
    """The status after the pass, from what was seen before it."""
    return plan_status(view.deployment, view.new, view.sets, now, note=note)


__all__ = ['DONE', 'Plan', 'Scale', 'View', 'cleanup', 'next_status', 'plan']
