"""ResourceQuota: how much a namespace may hold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import PlainStrategy
from kapi.kinds.core.pod_defaults import normalize_resources
from kapi.kinds.printing import AGE
from kapi.kinds.rules import immutable, one_of, quantity
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path

SCOPES = ('BestEffort', 'CrossNamespacePodAffinity', 'NotBestEffort', 'NotTerminating', 'PriorityClass', 'Terminating',
          'VolumeAttributesClass')  # fmt: skip


class ResourceQuotaStrategy(PlainStrategy):
    returns_deleted_object = True

    def default(self, obj: Obj) -> None:
        for path in ('spec.hard', 'status.hard', 'status.used'):
            normalize_resources(get_path(obj, path))

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        for name, amount in (get_path(new, 'spec.hard') or {}).items():
            yield from quantity(f'spec.hard[{name}]', amount)
        scopes = get_path(new, 'spec.scopes') or []
        for i, scope in enumerate(scopes):
            yield from one_of(f'spec.scopes[{i}]', scope, SCOPES)
        if old is not None:
            yield from immutable('spec.scopes', scopes, get_path(old, 'spec.scopes') or [])

    def validate_status(self, new: Obj, old: Obj) -> Iterator[Invalid]:
        for field in ('hard', 'used'):
            for name, amount in (get_path(new, f'status.{field}') or {}).items():
                yield from quantity(f'status.{field}[{name}]', amount)


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
