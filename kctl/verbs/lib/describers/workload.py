"""Deployments and ReplicaSets."""

from __future__ import annotations

from typing import Any

from kcore.meta import selectors
from kcore.meta.gvk import REPLICASETS
from kctl.verbs.lib.describers import pod, related
from kctl.verbs.lib.describers.page import Page, controlled_by, head, when
from kctl.verbs.lib.session import Session

Obj = dict[str, Any]

REVISION = 'deployment.kubernetes.io/revision'


def deployment(session: Session, obj: Obj, page: Page) -> None:
    spec, status = obj['spec'], obj.get('status') or {}
    head(page, obj)
    page.field('CreationTimestamp', when(obj['metadata'].get('creationTimestamp')))
    page.labels(obj)
    page.annotations(obj)
    page.field('Selector', selectors.format_selector(spec.get('selector')))
    page.line(
        f'Replicas:\t{spec.get("replicas", 1)} desired | {status.get("updatedReplicas", 0)} updated | '
        f'{status.get("replicas", 0)} total | {status.get("availableReplicas", 0)} available | '
        f'{status.get("unavailableReplicas", 0)} unavailable'
    )
    strategy = spec.get('strategy') or {}
    page.field('StrategyType', strategy.get('type', 'RollingUpdate'))
    page.field('MinReadySeconds', spec.get('minReadySeconds', 0))
    rolling = strategy.get('rollingUpdate')
    if rolling:
        page.field(
            'RollingUpdateStrategy',
            f'{rolling.get("maxUnavailable")} max unavailable, {rolling.get("maxSurge")} max surge',
        )
    pod.template(page, spec['template'])
    if status.get('conditions'):
        page.line('Conditions:')
        page.line('Type\tStatus\tReason', 1)
        page.line('----\t------\t------', 1)
        for c in status['conditions']:
            page.line(f'{c["type"]} \t{c["status"]}\t{c.get("reason", "")}', 1)
    _replica_sets(session, obj, page)
    page.events(related.events(session, obj))


def _replica_sets(session: Session, obj: Obj, page: Page) -> None:
    """The one of the present revision is new, others are old."""
    selector = str(selectors.from_label_selector(obj['spec'].get('selector')))
    found = related.listed(session, REPLICASETS, obj['metadata'].get('namespace'), labelSelector=selector)
    uid = obj['metadata'].get('uid')
    own = [rs for rs in found if any(o.get('uid') == uid for o in rs['metadata'].get('ownerReferences') or ())]
    present = (obj['metadata'].get('annotations') or {}).get(REVISION)
    new = [rs for rs in own if (rs['metadata'].get('annotations') or {}).get(REVISION) == present]
    old = sorted((rs for rs in own if rs not in new), key=_revision)
    page.field('OldReplicaSets', ', '.join(map(_replica_text, old)) or '<none>')
    page.field('NewReplicaSet', ', '.join(map(_replica_text, new)) or '<none>')


def _revision(rs: Obj) -> int:
    text = (rs['metadata'].get('annotations') or {}).get(REVISION, '')
    return int(text) if text.isdigit() else 0


def _replica_text(rs: Obj) -> str:
    made = (rs.get('status') or {}).get('replicas', 0)
    return f'{rs["metadata"]["name"]} ({made}/{rs["spec"].get("replicas", 1)} replicas created)'


def replica_set(session: Session, obj: Obj, page: Page) -> None:
    spec, status = obj['spec'], obj.get('status') or {}
    head(page, obj)
    page.field('Selector', selectors.format_selector(spec.get('selector')))
    page.labels(obj)
    page.annotations(obj)
    controlled_by(page, obj)
    page.field('Replicas', f'{status.get("replicas", 0)} current / {spec.get("replicas", 1)} desired')
    phases = [(p.get('status') or {}).get('phase') for p in related.pods_of(session, obj)]
    page.line(
        f'Pods Status:\t{phases.count("Running")} Running / {phases.count("Pending")} Waiting / '
        f'{phases.count("Succeeded")} Succeeded / {phases.count("Failed")} Failed'
    )
    pod.template(page, spec.get('template') or {})
    if status.get('conditions'):
        page.line('Conditions:')
        page.line('Type\tStatus\tReason', 1)
        page.line('----\t------\t------', 1)
        for c in status['conditions']:
            page.line(f'{c["type"]} \t{c["status"]}\t{c.get("reason", "")}', 1)
    page.events(related.events(session, obj))
