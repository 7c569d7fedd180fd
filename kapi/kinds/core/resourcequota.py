"""ResourceQuota: how much a namespace may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import PlainStrategy
from kapi.kinds.core.pod_defaults import normalize_resources
from kapi.kinds.printing import AGE
from kapi.kinds.rules import immutable, invalid, quantity, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path
from kcore.meta.quota import PLAIN

_COMPUTE = frozenset(
    f'{side}{name}' for side in ('', 'requests.', 'limits.') for name in ('cpu', 'memory', 'ephemeral-storage')
)
_PODS = frozenset({'pods', *(name for name in _COMPUTE if not name.endswith('storage'))})
SCOPES = {
    'BestEffort': frozenset({'pods'}), 'CrossNamespacePodAffinity': _PODS, 'NotBestEffort': _PODS,
    'NotTerminating': _PODS, 'PriorityClass': _PODS, 'Terminating': _PODS,
    'VolumeAttributesClass': frozenset({'persistentvolumeclaims', 'requests.storage'}),
}  # fmt: skip
"""Which of the standard resources each scope may limit. Source: pkg/apis/core/helper."""
_STANDARD = _COMPUTE | PLAIN | {'pods', 'requests.storage', 'services.nodeports', 'services.loadbalancers'}
_HUGE_PAGES = re.compile(r'(requests\.)?hugepages-')
_CONFLICTING = ({'BestEffort', 'NotBestEffort'}, {'Terminating', 'NotTerminating'})
_VALUED = frozenset({'PriorityClass', 'VolumeAttributesClass'})
"""Scopes that have names to select by; the others exist or do not."""


class ResourceQuotaStrategy(PlainStrategy):
    returns_deleted_object = True

    def default(self, obj: Obj) -> None:
        for path in ('spec.hard', 'status.hard', 'status.used'):
            normalize_resources(get_path(obj, path))

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        for name, amount in (get_path(new, 'spec.hard') or {}).items():
            yield from quantity(f'spec.hard[{name}]', amount)
        scopes = get_path(new, 'spec.scopes') or []
        for scope in scopes:
            if scope not in SCOPES:
                yield invalid('spec.scopes', scopes, 'unsupported scope')
        yield from _together('spec.scopes', scopes, new)
        yield from _selector(new)
        if old is not None:
            yield from immutable('spec.scopes', scopes, get_path(old, 'spec.scopes') or [])

    def validate_status(self, new: Obj, old: Obj) -> Iterator[Invalid]:
        for field in ('hard', 'used'):
            for name, amount in (get_path(new, f'status.{field}') or {}).items():
                yield from quantity(f'status.{field}[{name}]', amount)


def _selector(quota: Obj) -> Iterator[Invalid]:
    path = 'spec.scopeSelector.matchExpressions'
    wanted = get_path(quota, path) or []
    for want in wanted:
        scope, operator, values = want.get('scopeName'), want.get('operator'), want.get('values') or []
        if scope not in SCOPES:
            yield invalid(f'{path}.scopeName', scope, 'unsupported scope')
        elif scope not in _VALUED and operator != 'Exists':
            plain = [f'ResourceQuotaScope{s}' for s in ('Terminating', 'NotTerminating', 'BestEffort', 'NotBestEffort')]
            listed = f'{", ".join(plain)} or ResourceQuotaScopeCrossNamespacePodAffinity'
            yield invalid(f'{path}.operator', operator, f"must be 'Exist' when scope is any of {listed}")
        if operator in {'In', 'NotIn'}:
            if not values:
                why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                yield required(f'{path}.values', why)
        elif operator not in {'Exists', 'DoesNotExist'}:
            yield invalid(f'{path}.operator', operator, 'not a valid selector operator')
        elif values:
            why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            yield invalid(f'{path}.values', values, why)
    yield from _together(path, [want.get('scopeName') for want in wanted], quota)


def _together(field: str, scopes: list[str], quota: Obj) -> Iterator[Invalid]:
    """Scopes that no object can meet at once, and resources that a scope does not limit."""
    limited = {r for r in get_path(quota, 'spec.hard') or {} if r in _STANDARD or _HUGE_PAGES.match(r)}
    for scope in scopes:
        if limited - SCOPES.get(scope, limited):
            yield invalid(field, scopes, 'unsupported scope applied to resource')
    if any(pair <= set(scopes) for pair in _CONFLICTING):
        yield invalid(field, scopes, 'conflicting scopes')


def _used(limits: bool) -> Col:
    def cell(obj: Obj, _now: datetime) -> str:
        hard, used = get_path(obj, 'status.hard') or {}, get_path(obj, 'status.used') or {}
        return ', '.join(
            f'{name}: {used.get(name, "0")}/{hard[name]}'
            for name in sorted(hard)
            if name.startswith('limits.') == limits
        )

    return Col('Limit' if limits else 'Request', cell, description='Used, of what is allowed.')


KIND = Kind(
    resource=Resource('', 'v1', 'resourcequotas', 'ResourceQuota'),
    strategy=ResourceQuotaStrategy(),
    short=('quota',),
    subresources=(Status(),),
    columns=(_used(limits=False), _used(limits=True), AGE),
)
