"""What a namespace uses, by the names that a quota limits. Pure.

Source: pkg/quota/v1/evaluator/core (pods.go, services.go, persistent_volume_claims.go), pkg/controller/resourcequota.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from kclient.model import Obj
from kcore.meta import quantity
from kcore.meta.objects import annotations_of, get_path, is_pod_finished

Usage = dict[str, Decimal]
Counted = Mapping[str, Iterable[Obj]]
"""`pods`, `services`, `deployments.apps`, … → the namespace's objects."""

CORE = (
    'pods',
    'services',
    'replicationcontrollers',
    'secrets',
    'configmaps',
    'persistentvolumeclaims',
    'resourcequotas',
)
_BARE = ('cpu', 'memory', 'ephemeral-storage')
_STORAGE_CLASS = '.storageclass.storage.k8s.io/'
_LEGACY_CLASS = 'volume.beta.kubernetes.io/storage-class'


def resource_of(name: str) -> str:
    """The resource whose objects a limited name needs: `requests.cpu` → `pods`, `count/jobs.batch` → `jobs.batch`."""
    if name.startswith('count/'):
        return name.removeprefix('count/')
    if name in CORE:
        return name
    if name.startswith('services.'):
        return 'services'
    if name == 'requests.storage' or _STORAGE_CLASS in name:
        return 'persistentvolumeclaims'
    return 'pods'


def used(quota: Obj, counted: Counted) -> dict[str, str]:
    """`status.used`: every limited name with what there is of it."""
    hard = (quota.get('spec') or {}).get('hard') or {}
    total: Usage = {name: Decimal(0) for name in hard}
    for resource in {resource_of(name) for name in hard}:
        for obj in counted.get(resource, ()):
            if resource == 'pods' and not in_scope(quota, obj):
                continue
            for name, amount in usage_of(resource, obj).items():
                if name in total:
                    total[name] += amount
    return {name: quantity.format(amount, quantity.format_of(hard[name])) for name, amount in total.items()}


def usage_of(resource: str, obj: Obj) -> Usage:
    """What one object counts for."""
    if resource == 'pods':
        return _pod(obj)
    usage: Usage = {f'count/{resource}': Decimal(1)}
    if resource in CORE:
        usage[resource] = Decimal(1)
    if resource == 'services':
        usage |= _service(obj)
    elif resource == 'persistentvolumeclaims':
        usage |= _claim(obj)
    return usage


def _pod(pod: Obj) -> Usage:
    usage: Usage = {'count/pods': Decimal(1)}
    if is_pod_finished(pod):
        return usage  # counts as an object only
    usage['pods'] = Decimal(1)
    for field in ('requests', 'limits'):
        for name, amount in pod_total(pod, field).items():
            usage[f'{field}.{name}'] = amount
            if field == 'requests' and name in _BARE:
                usage[name] = amount
    return usage


def pod_total(pod: Obj, field: str) -> Usage:
    """Requests or limits of a pod: containers together, or the greatest init container, and the overhead."""
    spec = pod.get('spec') or {}
    total: Usage = {}
    for container in spec.get('containers') or ():
        _add(total, _amounts(container, field))
    sidecars: Usage = {}
    peak: Usage = {}
    for container in spec.get('initContainers') or ():
        asked = _amounts(container, field)
        if container.get('restartPolicy') == 'Always':
            _add(total, asked)
            _add(sidecars, asked)
        else:
            _add(asked, sidecars)
            peak = {n: max(peak.get(n, Decimal(0)), asked.get(n, Decimal(0))) for n in {*peak, *asked}}
    total = {n: max(total.get(n, Decimal(0)), peak.get(n, Decimal(0))) for n in {*total, *peak}}
    _add(total, {n: quantity.parse(q) for n, q in (spec.get('overhead') or {}).items()})
    return total


def _amounts(container: Obj, field: str) -> Usage:
    found = (container.get('resources') or {}).get(field) or {}
    return {name: quantity.parse(amount) for name, amount in found.items()}


def _add(into: Usage, more: Usage) -> None:
    for name, amount in more.items():
        into[name] = into.get(name, Decimal(0)) + amount


def _service(service: Obj) -> Usage:
    spec = service.get('spec') or {}
    kind, ports = spec.get('type'), spec.get('ports') or ()
    if kind == 'NodePort':
        return {'services.nodeports': Decimal(len(ports))}
    if kind == 'LoadBalancer':
        held = len(ports) if spec.get('allocateLoadBalancerNodePorts', True) else sum('nodePort' in p for p in ports)
        return {'services.loadbalancers': Decimal(1), 'services.nodeports': Decimal(held)}
    return {}


def _claim(claim: Obj) -> Usage:
    usage: Usage = {}
    asked = get_path(claim, 'spec.resources.requests.storage')
    given = get_path(claim, 'status.capacity.storage')
    amount = max(quantity.parse(q) for q in (asked or '0', given or '0'))
    usage['requests.storage'] = amount
    name = annotations_of(claim).get(_LEGACY_CLASS) or get_path(claim, 'spec.storageClassName')
    if name:
        usage[f'{name}{_STORAGE_CLASS}requests.storage'] = amount
        usage[f'{name}{_STORAGE_CLASS}persistentvolumeclaims'] = Decimal(1)
    return usage


def in_scope(quota: Obj, pod: Obj) -> bool:
    """Whether all scopes of the quota match the pod."""
    spec = quota.get('spec') or {}
    rules = [{'scopeName': s, 'operator': 'Exists'} for s in spec.get('scopes') or ()]
    rules += (spec.get('scopeSelector') or {}).get('matchExpressions') or []
    return all(_matches(rule, pod) for rule in rules)


def _matches(rule: Obj, pod: Obj) -> bool:
    spec = pod.get('spec') or {}
    match rule.get('scopeName'):
        case 'Terminating':
            return spec.get('activeDeadlineSeconds') is not None
        case 'NotTerminating':
            return spec.get('activeDeadlineSeconds') is None
        case 'BestEffort':
            return _best_effort(pod)
        case 'NotBestEffort':
            return not _best_effort(pod)
        case 'PriorityClass':
            return _named(rule, spec.get('priorityClassName') or '')
        case 'CrossNamespacePodAffinity':
            return _crosses(spec)
    return False


def _named(rule: Obj, name: str) -> bool:
    values = rule.get('values') or ()
    match rule.get('operator'):
        case 'In':
            return name in values
        case 'NotIn':
            return name not in values
        case 'DoesNotExist':
            return not name
    return bool(name)


def _best_effort(pod: Obj) -> bool:
    """No cpu or memory asked for or limited anywhere."""
    spec = pod.get('spec') or {}
    both = [*(spec.get('containers') or ()), *(spec.get('initContainers') or ())]
    return not any(
        name in ('cpu', 'memory') and quantity.parse(amount) > 0
        for c in both
        for field in ('requests', 'limits')
        for name, amount in ((c.get('resources') or {}).get(field) or {}).items()
    )


def _crosses(spec: Obj) -> bool:
    affinity = spec.get('affinity') or {}
    for side in ('podAffinity', 'podAntiAffinity'):
        rules = affinity.get(side) or {}
        terms = [*(rules.get('requiredDuringSchedulingIgnoredDuringExecution') or ())]
        weighted = rules.get('preferredDuringSchedulingIgnoredDuringExecution') or ()
        terms += [w.get('podAffinityTerm') or {} for w in weighted]
        if any(t.get('namespaces') or t.get('namespaceSelector') is not None for t in terms):
            return True
    return False
