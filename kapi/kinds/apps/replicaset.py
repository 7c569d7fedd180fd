"""ReplicaSet: so many pods of one template."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from kapi.kinds.apps.deployment import replica_counts
from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.core.pod_defaults import default_template
from kapi.kinds.core.pod_rules import template
from kapi.kinds.printing import AGE, CONTAINERS, IMAGES, SELECTOR, number
from kapi.kinds.rules import immutable, not_negative, selects_template
from kapi.registry.kind import Col, Kind, Obj, Scale, Status
from kapi.registry.strategy import Invalid
from kcore.meta import gvk
from kcore.meta.objects import get_path


class ReplicaSetStrategy(BuiltinStrategy):
    first_status = MappingProxyType({'replicas': 0})

    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        put_defaults(spec, replicas=1)
        default_template(spec.get('template'))

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        for field in ('replicas', 'minReadySeconds'):
            yield from not_negative(f'spec.{field}', spec.get(field))
        yield from selects_template(spec)
        yield from template('spec.template', spec.get('template'))
        if old is not None:
            yield from immutable('spec.selector', spec.get('selector'), get_path(old, 'spec.selector'))

    def validate_status(self, new: Obj, old: Obj) -> Iterator[Invalid]:
        yield from replica_counts(new.get('status') or {})


KIND = Kind(
    resource=gvk.REPLICASETS,
    strategy=ReplicaSetStrategy(),
    short=('rs',),
    categories=('all',),
    subresources=(Scale('spec.replicas', 'status.replicas', 'spec.selector'), Status()),
    columns=(
        Col('Desired', number('spec.replicas'), 'integer', description='Pods that are wanted.'),
        Col('Current', number('status.replicas'), 'integer', description='Pods that exist.'),
        Col('Ready', number('status.readyReplicas'), 'integer', description='Pods that are ready.'),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    selectable={'status.replicas': 'status.replicas'},
)
