"""PodSecurity: a namespace's labels say how much its pods may ask of their node.

`pod-security.kubernetes.io/enforce|audit|warn` (and `-version`): enforce refuses pods; warn and audit also look into
the templates of workloads. Source: k8s.io/pod-security-admission/admission/admission.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.admission.podsecurity.checks import LATEST, LEVELS, Level, Violation, version_of, violations
from kapi.errors import Forbidden, InvalidObject
from kapi.registry.strategy import Invalid
from kapi.storage.cache import Cache
from kcore.meta.gvk import NAMESPACES

Obj = dict[str, Any]
PREFIX = 'pod-security.kubernetes.io/'
MODES = ('enforce', 'audit', 'warn')
PODS_MAX = 3_000
"""Pods of a namespace that are looked at when its level is raised (upstream's figure)."""
_TEMPLATES = {
    ('apps', 'deployments'), ('apps', 'replicasets'), ('apps', 'statefulsets'), ('apps', 'daemonsets'),
    ('batch', 'jobs'), ('batch', 'cronjobs'), ('', 'replicationcontrollers'), ('', 'podtemplates'),
}  # fmt: skip


class PodSecurity(Plugin):
    name = 'PodSecurity'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE'})

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def validate(self, a: Attributes) -> None:
        if a.obj is None:
            return
        if a.is_for('', 'namespaces'):
            if not a.subresource:
                _check_labels(a.obj, a.old)
                a.warnings.extend(self._tightened(a.obj, a.old))
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
            version = labels.get(f'{PREFIX}{mode}-version') or 'latest'
            if mode == 'enforce' and pod:
                a.annotations[f'{PREFIX}enforce-policy'] = f'{level}:{version}'
            broken = violations(level, version_of(version) or LATEST, meta, spec)
            if not broken:
                continue
            text = _text(level, version, broken)
            if mode == 'enforce' and pod:
                raise Forbidden.on(a.kind.resource, a.name, f'violates {text}')
            if mode == 'warn':
                warned = text
            if mode == 'audit':
                a.annotations[f'{PREFIX}audit-violations'] = f'would violate {text}'
        if warned:
            a.warnings.append(f'would violate {warned}')

    def _tightened(self, namespace: Obj, old: Obj | None) -> Iterator[str]:
        """Warnings about pods that are there already and that the new level to enforce would refuse."""
        (level, version), (before, _) = _enforced(namespace), _enforced(old or {})
        name = namespace['metadata'].get('name', '')
        if old is None or _enforced(old) == (level, version) or LEVELS.index(level) < LEVELS.index(before):
            return
        faulty: dict[str, list[str]] = {}
        prefix = f'/registry/pods/{name}/'
        for entry in islice(self._cache.resource('/registry/pods/').select(prefix), PODS_MAX):
            broken = violations(
                level, version_of(version) or LATEST, entry.obj['metadata'], entry.obj.get('spec') or {}
            )
            if broken:
                reasons = ', '.join(dict.fromkeys(v.reason for v in broken))
                faulty.setdefault(reasons, []).append(entry.obj['metadata']['name'])
        if faulty:
            yield f'existing pods in namespace "{name}" violate the new PodSecurity enforce level "{level}:{version}"'
        for reasons, names in sorted(faulty.items(), key=lambda f: f[1]):
            more = len(names) - 1
            others = f' (and {more} other pod{"s" if more > 1 else ""})' if more else ''
            yield f'{names[0]}{others}: {reasons}'

    def _labels(self, namespace: str) -> Obj:
        entry = self._cache.peek(f'/registry/namespaces/{namespace}')
        return (entry.obj['metadata'].get('labels') or {}) if entry is not None else {}


def _enforced(namespace: Obj) -> tuple[Level, str]:
    labels = (namespace.get('metadata') or {}).get('labels') or {}
    level = labels.get(f'{PREFIX}enforce')
    return (level if level in LEVELS else 'privileged'), labels.get(f'{PREFIX}enforce-version') or 'latest'


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


def _check_labels(namespace: Obj, old: Obj | None) -> None:
    """Labels that changed; what was let in earlier is no reason to refuse everything else."""
    labels = namespace['metadata'].get('labels') or {}
    before = ((old or {}).get('metadata') or {}).get('labels') or {}
    broken = []
    for mode in MODES:
        for key, good, why in (
            (f'{PREFIX}{mode}', LEVELS.__contains__, 'must be one of privileged, baseline, restricted'),
            (f'{PREFIX}{mode}-version', version_of, 'must be "latest" or "v1.x"'),
        ):
            if key in labels and labels[key] != before.get(key) and not good(labels[key]):
                broken.append(Invalid(f'metadata.labels[{key}]', f'Invalid value: "{labels[key]}": {why}'))
    if broken:
        raise InvalidObject(NAMESPACES.kind, '', namespace['metadata'].get('name', ''), broken)
