"""What else a description needs from the server."""

from __future__ import annotations

from typing import Any

from kcore.meta import selectors
from kcore.meta.gvk import EVENTS, PODS, Resource
from kctl.verbs.lib.errors import Refused
from kctl.verbs.lib.session import Session

Obj = dict[str, Any]


def events(session: Session, obj: Obj) -> list[Obj]:
    """Events about `obj`; none when they may not be read."""
    meta = obj['metadata']
    where = {'involvedObject.name': meta['name'], 'involvedObject.uid': meta.get('uid', '')}
    if meta.get('namespace'):
        where['involvedObject.namespace'] = meta['namespace']
    return _events(session, meta.get('namespace'), where)


def events_of_node(session: Session, obj: Obj) -> list[Obj]:
    """A kubelet names its node by name where others use the uid."""
    meta = obj['metadata']
    found = [
        e for uid in (meta.get('uid', ''), meta['name'])
        for e in _events(session, None, {'involvedObject.name': meta['name'], 'involvedObject.uid': uid})
    ]  # fmt: skip
    return list({e['metadata'].get('uid') or id(e): e for e in found}.values())


def _events(session: Session, namespace: str | None, where: dict[str, str]) -> list[Obj]:
    selector = ','.join(f'{k}={v}' for k, v in where.items())
    try:
        body = session.http.get(EVENTS.path(namespace), {'fieldSelector': selector, 'limit': 500})
    except Refused:
        return []
    return body.get('items') or []


def listed(session: Session, r: Resource, namespace: str | None, **selector: str) -> list[Obj]:
    """Objects of `r`; none when they may not be read."""
    try:
        return session.http.get(r.path(namespace), selector).get('items') or []
    except Refused:
        return []


def pods_of(session: Session, obj: Obj) -> list[Obj]:
    """Pods that the label selector of a workload selects and that it controls."""
    selector = str(selectors.from_label_selector(obj['spec'].get('selector')))
    found = listed(session, PODS, obj['metadata'].get('namespace'), labelSelector=selector)
    uid = obj['metadata'].get('uid')
    return [p for p in found if any(o.get('uid') == uid for o in p['metadata'].get('ownerReferences') or ())]
