"""ReplicationController: the ReplicaSet of older days, with a plain map as selector."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from kapi.kinds.apps.deployment import replica_counts
from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.core.pod_defaults import default_template
from kapi.kinds.core.pod_rules import template
from kapi.kinds.printing import AGE, CONTAINERS, IMAGES, labels_at, number
from kapi.kinds.rules import invalid, not_negative, required
from kapi.registry.kind import Col, Kind, Obj, Scale, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path


class ReplicationControllerStrategy(BuiltinStrategy):
    first_status = MappingProxyType({'replicas': 0})
    default_propagation = 'Orphan'

    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        put_defaults(spec, replicas=1)
        default_template(spec.get('template'))
        labels = get_path(spec, 'template.metadata.labels')
        if labels:
            put_defaults(spec, selector=dict(labels))
            put_defaults(obj['metadata'], labels=dict(labels))

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        for field in ('replicas', 'minReadySeconds'):
            yield from not_negative(f'spec.{field}', spec.get(field))
        selector = spec.get('selector') or {}
        if not selector:
            yield required('spec.selector')
        labels = get_path(spec, 'template.metadata.labels') or {}
        if any(labels.get(key) != value for key, value in selector.items()):
            yield invalid('spec.template.metadata.labels', labels, '`selector` does not match template `labels`')
        yield from template('spec.template', spec.get('template'))

    def validate_status(self, new: Obj, old: Obj) -> Iterator[Invalid]:
        yield from replica_counts(new.get('status') or {})


KIND = Kind(
    resource=Resource('', 'v1', 'replicationcontrollers', 'ReplicationController'),
    strategy=ReplicationControllerStrategy(),
    short=('rc',),
    categories=('all',),
    subresources=(Scale('spec.replicas', 'status.replicas', 'spec.selector'), Status()),
    columns=(
        Col('Desired', number('spec.replicas'), 'integer', description='Pods that are wanted.'),
        Col('Current', number('status.replicas'), 'integer', description='Pods that exist.'),
        Col('Ready', number('status.readyReplicas'), 'integer', description='Pods that are ready.'),
        AGE,
        CONTAINERS,
        IMAGES,
        Col('Selector', labels_at('spec.selector'), priority=1, description='Labels of the owned pods.'),
    ),
    selectable={'status.replicas': 'status.replicas'},
)
