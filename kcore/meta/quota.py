"""What one object uses of a ResourceQuota, by the names that a quota limits, and which objects a quota counts. Pure.

A resource is named as quotas name it: `pods`, `jobs.batch`. Source: pkg/quota/v1/evaluator/core.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from kcore.meta.objects import is_pod_finished
from kcore.meta.podresources import exactly, pod_total

Obj = dict[str, Any]
Amounts = dict[str, Decimal]
ONE = Decimal(1)
STORAGE_CLASS = '.storageclass.storage.k8s.io/'
_LEGACY_CLASS = 'volume.beta.kubernetes.io/storage-class'
PLAIN = frozenset(
    ('configmaps', 'secrets', 'services', 'replicationcontrollers', 'resourcequotas', 'persistentvolumeclaims')
)
"""Limited by their bare name too; so are pods, while they have not finished."""
_STANDARD = frozenset({'cpu', 'memory', 'ephemeral-storage'})


def usage_of(resource: str, obj: Obj) -> Amounts:
    """Every quota resource that `obj` counts for. Raises QuantityError."""
    used: Amounts = {f'count/{resource}': ONE}
    if resource in PLAIN:
        used[resource] = ONE
    match resource:
        case 'pods':
            used |= _pod(obj)
        case 'services':
            used |= _service(obj)
        case 'persistentvolumeclaims':
            used |= _claim(obj)
    return used


def _service(obj: Obj) -> Amounts:
    spec = obj.get('spec') or {}
    ports = spec.get('ports') or ()
    kind = spec.get('type')
    if kind == 'NodePort':
        return {'services.nodeports': Decimal(len(ports))}
    if kind == 'LoadBalancer':
        wants = spec.get('allocateLoadBalancerNodePorts', True) is not False
        taken = len(ports) if wants else sum(1 for p in ports if p.get('nodePort'))
        return {'services.loadbalancers': ONE, 'services.nodeports': Decimal(taken)}
    return {}


def _claim(obj: Obj) -> Amounts:
    """What a claim may have grown to counts, even while its spec asks for less again."""
    spec, status = obj.get('spec') or {}, obj.get('status') or {}
    asked = exactly((spec.get('resources') or {}).get('requests')).get('storage', Decimal(0))
    amount = max(asked, exactly(status.get('allocatedResources')).get('storage', Decimal(0)))
    used = {'requests.storage': amount}
    named = ((obj.get('metadata') or {}).get('annotations') or {}).get(_LEGACY_CLASS) or spec.get('storageClassName')
    if named:
        used[f'{named}{STORAGE_CLASS}persistentvolumeclaims'] = ONE
        used[f'{named}{STORAGE_CLASS}requests.storage'] = amount
    return used


def _pod(obj: Obj) -> Amounts:
    """A finished pod counts as an object only."""
    if is_pod_finished(obj):
        return {}
    spec = obj.get('spec') or {}
    used: Amounts = {'pods': ONE}
    for name, amount in pod_total(spec, 'requests', exactly).items():
        used[f'requests.{name}'] = amount
        if name in _STANDARD or name.startswith('hugepages-'):
            used[name] = amount
    for name, amount in pod_total(spec, 'limits', exactly).items():
        if name in _STANDARD:
            used[f'limits.{name}'] = amount
    return used


def sum_up(parts: Iterable[Amounts]) -> Amounts:
    total: Amounts = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, Decimal(0)) + amount
    return total


def in_scope(quota: Obj, resource: str, obj: Obj) -> bool:
    """Whether the quota's scopes select the object: VolumeAttributesClass is about claims, all others about pods."""
    spec = quota.get('spec') or {}
    wanted = [{'scopeName': s, 'operator': 'Exists'} for s in spec.get('scopes') or ()]
    wanted += (spec.get('scopeSelector') or {}).get('matchExpressions') or []
    if not wanted:
        return True
    if resource == 'persistentvolumeclaims':
        classes = _attributes_classes(obj)
        return all(w['scopeName'] == 'VolumeAttributesClass' and _selects(w, classes) for w in wanted)
    return resource == 'pods' and all(_matches(w, obj.get('spec') or {}) for w in wanted)


def _attributes_classes(claim: Obj) -> set[str]:
    """The class asked for, the one that the volume has, and the one on the way to it."""
    spec, status = claim.get('spec') or {}, claim.get('status') or {}
    modifying = (status.get('modifyVolumeStatus') or {}).get('targetVolumeAttributesClassName')
    named = (spec.get('volumeAttributesClassName'), status.get('currentVolumeAttributesClassName'), modifying)
    return {n for n in named if n}


def _matches(wanted: Obj, spec: Obj) -> bool:
    match wanted['scopeName']:
        case 'Terminating':
            return (spec.get('activeDeadlineSeconds') or -1) >= 0
        case 'NotTerminating':
            return spec.get('activeDeadlineSeconds') is None
        case 'BestEffort':
            return best_effort(spec)
        case 'NotBestEffort':
            return not best_effort(spec)
        case 'PriorityClass':
            name = spec.get('priorityClassName')
            return _selects(wanted, {name} if name else set())
        case 'CrossNamespacePodAffinity':
            return _crosses(spec)
    return False


def best_effort(spec: Obj) -> bool:
    """No cpu or memory asked for or limited anywhere; zeros do not count. Raises QuantityError."""
    containers = [*(spec.get('containers') or ()), *(spec.get('initContainers') or ())]
    return not any(
        name in {'cpu', 'memory'} and amount > 0
        for c in containers
        for side in ('requests', 'limits')
        for name, amount in exactly((c.get('resources') or {}).get(side)).items()
    )


def _selects(wanted: Obj, names: set[str]) -> bool:
    values = wanted.get('values') or ()
    match wanted.get('operator'):
        case 'In':
            return not names.isdisjoint(values)
        case 'NotIn':
            return names.isdisjoint(values)
        case 'DoesNotExist':
            return not names
    return bool(names)


def _crosses(spec: Obj) -> bool:
    affinity = spec.get('affinity') or {}
    for field in ('podAffinity', 'podAntiAffinity'):
        part = affinity.get(field) or {}
        terms = list(part.get('requiredDuringSchedulingIgnoredDuringExecution') or ())
        preferred = part.get('preferredDuringSchedulingIgnoredDuringExecution') or ()
        terms += [t.get('podAffinityTerm') or {} for t in preferred]
        if any(t.get('namespaces') or t.get('namespaceSelector') is not None for t in terms):
            return True
    return False
