"""PodSecurity: a namespace's labels say how much its pods may ask of their node.

`pod-security.kubernetes.io/enforce|audit|warn` (and `-version`): enforce refuses pods; warn and audit also look into
the templates of workloads. Source: k8s.io/pod-security-admission/admission/admission.go.
"""

from __future__ import annotations

from typing import Any

from kapi.admission.chain import Attributes, Operation
from kapi.admission.podsecurity.checks import LEVELS, Level, Violation, violations
from kapi.errors import Forbidden, InvalidObject
from kapi.registry.strategy import Invalid
from kapi.storage.cache import Cache
from kcore.meta.gvk import NAMESPACES

Obj = dict[str, Any]
PREFIX = 'pod-security.kubernetes.io/'
MODES = ('enforce', 'audit', 'warn')
_TEMPLATES = {
    ('apps', 'deployments'), ('apps', 'replicasets'), ('apps', 'statefulsets'), ('apps', 'daemonsets'),
    ('batch', 'jobs'), ('batch', 'cronjobs'), ('', 'replicationcontrollers'), ('', 'podtemplates'),
}  # fmt: skip


class PodSecurity:
    name = 'PodSecurity'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE'})

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def mutate(self, a: Attributes) -> None:
        """Changes nothing."""

    async def validate(self, a: Attributes) -> None:
        if a.obj is None:
            return
        if a.is_for('', 'namespaces'):
            _check_labels(a.obj)
            return
        pod = a.is_for('', 'pods') or a.is_for('', 'pods', 'ephemeralcontainers') or a.is_for('', 'pods', 'resize')
        r = a.kind.resource
        if not a.namespace or not (pod or ((r.group, r.plural) in _TEMPLATES and not a.subresource)):
            return
        if pod and a.old is not None and _same(a.obj, a.old):
            return
        labels = self._labels(a.namespace)
        if not any(k.startswith(PREFIX) for k in labels):
            return
        template = a.obj if pod else _template(a.obj)
        self._judge(a, labels, template, pod=pod)

    def _judge(self, a: Attributes, labels: Obj, template: Obj, *, pod: bool) -> None:
        meta, spec = template.get('metadata') or {}, template.get('spec') or {}
        warned = ''
        for mode in MODES:
            level = labels.get(f'{PREFIX}{mode}')
            if level not in LEVELS or level == 'privileged':
                continue
            broken = violations(level, meta, spec)
            if not broken:
                continue
            text = _text(level, labels.get(f'{PREFIX}{mode}-version') or 'latest', broken)
            if mode == 'enforce' and pod:
                raise Forbidden.on(a.kind.resource, a.name, f'violates {text}')
            if mode == 'warn':
                warned = text
            if mode == 'audit':
                a.annotations['pod-security.kubernetes.io/audit-violations'] = f'would violate {text}'
        if warned:
            a.warnings.append(f'would violate {warned}')

    def _labels(self, namespace: str) -> Obj:
        entry = self._cache.peek(f'/registry/namespaces/{namespace}')
        return (entry.obj['metadata'].get('labels') or {}) if entry is not None else {}


def _text(level: Level, version: str, broken: list[Violation]) -> str:
    return f'PodSecurity "{level}:{version}": {", ".join(map(str, broken))}'


def _same(new: Obj, old: Obj) -> bool:
    """Updates that change neither the spec nor the AppArmor annotations need no new judgement."""
    return new.get('spec') == old.get('spec') and new['metadata'].get('annotations') == old['metadata'].get(
        'annotations'
    )


def _template(obj: Obj) -> Obj:
    if 'template' in obj:
        return obj.get('template') or {}
    spec = obj.get('spec') or {}
    if 'jobTemplate' in spec:
        spec = (spec.get('jobTemplate') or {}).get('spec') or {}
    return spec.get('template') or {}


def _check_labels(namespace: Obj) -> None:
    labels = namespace['metadata'].get('labels') or {}
    broken = [
        Invalid(
            f'metadata.labels[{PREFIX}{mode}]',
            f'Invalid value: "{labels[PREFIX + mode]}": must be one of privileged, baseline, restricted',
        )
        for mode in MODES
        if labels.get(f'{PREFIX}{mode}', 'privileged') not in LEVELS
    ]
    if broken:
        raise InvalidObject(NAMESPACES.kind, '', namespace['metadata'].get('name', ''), broken)
