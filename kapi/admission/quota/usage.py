"""What one object uses of a quota, by quota resource name. Pure. Source: pkg/quota/v1/evaluator/core."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from kcore.meta.gvk import Resource
from kcore.meta.objects import is_pod_finished
from kcore.meta.quantity import parse

Obj = dict[str, Any]
Amounts = dict[str, Decimal]
ONE = Decimal(1)
STORAGE_CLASS = '.storageclass.storage.k8s.io/'
_PLAIN = {
    ('', 'configmaps'), ('', 'secrets'), ('', 'services'), ('', 'replicationcontrollers'), ('', 'resourcequotas'),
    ('', 'persistentvolumeclaims'),
}  # fmt: skip
_STANDARD = frozenset({'cpu', 'memory', 'ephemeral-storage'})


def usage_of(resource: Resource, obj: Obj) -> Amounts:
    """Every quota resource that `obj` counts for. Raises QuantityError."""
    used: Amounts = {f'count/{resource.qualified}': ONE}
    if (resource.group, resource.plural) in _PLAIN:
        used[resource.plural] = ONE
    match (resource.group, resource.plural):
        case ('', 'pods'):
            used |= _pod(obj)
        case ('', 'services'):
            used |= _service(obj)
        case ('', 'persistentvolumeclaims'):
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
    spec = obj.get('spec') or {}
    asked = parse(((spec.get('resources') or {}).get('requests') or {}).get('storage', '0'))
    used = {'requests.storage': asked}
    if storage_class := spec.get('storageClassName'):
        used[f'{storage_class}{STORAGE_CLASS}persistentvolumeclaims'] = ONE
        used[f'{storage_class}{STORAGE_CLASS}requests.storage'] = asked
    return used


def _pod(obj: Obj) -> Amounts:
    """A finished pod counts as an object only."""
    if is_pod_finished(obj):
        return {}
    spec = obj.get('spec') or {}
    used: Amounts = {'pods': ONE}
    for name, amount in pod_total(spec, 'requests').items():
        used[f'requests.{name}'] = amount
        if name in _STANDARD or name.startswith('hugepages-'):
            used[name] = amount
    for name, amount in pod_total(spec, 'limits').items():
        if name in _STANDARD:
            used[f'limits.{name}'] = amount
    return used


def pod_total(spec: Obj, side: str) -> Amounts:
    """Requests or limits of a whole pod: containers together, init containers one after another, plus overhead.

    Restartable init containers (sidecars) run on beside what follows them.
    """
    total: Counter[str] = Counter()
    for container in spec.get('containers') or ():
        _add(total, _resources(container, side))
    peak: Amounts = {}
    sidecars: Counter[str] = Counter()
    for container in spec.get('initContainers') or ():
        own = _resources(container, side)
        if container.get('restartPolicy') == 'Always':
            _add(sidecars, own)
            now: Amounts = dict(sidecars)  # type: ignore[arg-type]
        else:
            now = {k: own.get(k, Decimal(0)) + Decimal(sidecars[k]) for k in own.keys() | sidecars.keys()}
        for name, amount in now.items():
            peak[name] = max(peak.get(name, Decimal(0)), amount)
    _add(total, dict(sidecars))  # type: ignore[arg-type]
    found = {k: max(Decimal(total[k]), peak.get(k, Decimal(0))) for k in total.keys() | peak.keys()}
    for name, text in (spec.get('overhead') or {}).items():
        if side == 'requests' or name in found:
            found[name] = found.get(name, Decimal(0)) + parse(text)
    return found


def _resources(container: Obj, side: str) -> Amounts:
    return {k: parse(v) for k, v in ((container.get('resources') or {}).get(side) or {}).items()}


def _add(total: Counter[str], more: Mapping[str, Decimal]) -> None:
    for name, amount in more.items():
        total[name] = total[name] + amount  # type: ignore[assignment]


def sum_up(parts: Iterable[Amounts]) -> Amounts:
    total: Amounts = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, Decimal(0)) + amount
    return total


def in_scope(quota: Obj, resource: Resource, obj: Obj) -> bool:
    """Whether the quota's scopes select the object; scopes other than VolumeAttributesClass select pods only."""
    spec = quota.get('spec') or {}
    wanted = [{'scopeName': s, 'operator': 'Exists'} for s in spec.get('scopes') or ()]
    wanted += (spec.get('scopeSelector') or {}).get('matchExpressions') or []
    if not wanted:
        return True
    if (resource.group, resource.plural) != ('', 'pods'):
        return False
    return all(_matches(w, obj.get('spec') or {}) for w in wanted)


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
            return _selects(wanted, spec.get('priorityClassName') or '')
        case 'CrossNamespacePodAffinity':
            return _crosses(spec)
    return False


def best_effort(spec: Obj) -> bool:
    containers = [*(spec.get('containers') or ()), *(spec.get('initContainers') or ())]
    return not any(
        (c.get('resources') or {}).get(side, {}).keys() & {'cpu', 'memory'}
        for c in containers
        for side in ('requests', 'limits')
    )


def _selects(wanted: Obj, value: str) -> bool:
    values = wanted.get('values') or ()
    match wanted.get('operator'):
        case 'In':
            return value in values
        case 'NotIn':
            return value not in values
        case 'DoesNotExist':
            return not value
    return bool(value)


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


def missing(hard: Mapping[str, str], spec: Obj) -> dict[str, list[str]]:
    """Compute resources that the quota limits and containers do not state: resource → container names."""
    found: dict[str, list[str]] = {}
    for name in hard:
        side, _, resource = name.rpartition('.')
        resource = resource if side else name
        if side not in {'', 'requests', 'limits'} or resource not in {'cpu', 'memory'}:
            continue
        for container in [*(spec.get('containers') or ()), *(spec.get('initContainers') or ())]:
            if resource not in ((container.get('resources') or {}).get(side or 'requests') or {}):
                found.setdefault(name, []).append(container.get('name', ''))
    return found
