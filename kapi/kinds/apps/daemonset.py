"""DaemonSet: one pod on every fitting node."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.core.pod_defaults import default_template
from kapi.kinds.core.pod_rules import template
from kapi.kinds.printing import AGE, CONTAINERS, IMAGES, SELECTOR, labels_at, number
from kapi.kinds.rules import immutable, int_or_percent, not_negative, one_of, required, selects_template
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path

HISTORY_LIMIT = 10


class DaemonSetStrategy(BuiltinStrategy):
    first_status = MappingProxyType(
        dict.fromkeys(('currentNumberScheduled', 'desiredNumberScheduled', 'numberMisscheduled', 'numberReady'), 0)
    )

    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        put_defaults(spec, revisionHistoryLimit=HISTORY_LIMIT)
        update = spec.setdefault('updateStrategy', {})
        put_defaults(update, type='RollingUpdate')
        if update['type'] == 'RollingUpdate':
            put_defaults(update.setdefault('rollingUpdate', {}), maxUnavailable=1, maxSurge=0)
        default_template(spec.get('template'))

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        for field in ('minReadySeconds', 'revisionHistoryLimit'):
            yield from not_negative(f'spec.{field}', spec.get(field))
        yield from selects_template(spec)
        yield from template('spec.template', spec.get('template'))
        update = spec.get('updateStrategy') or {}
        yield from one_of('spec.updateStrategy.type', update.get('type'), ('OnDelete', 'RollingUpdate'))
        rolling = update.get('rollingUpdate')
        if rolling is not None:
            at = 'spec.updateStrategy.rollingUpdate'
            for field in ('maxUnavailable', 'maxSurge'):
                yield from int_or_percent(f'{at}.{field}', rolling.get(field))
            none = (0, '0%', None)
            if rolling.get('maxUnavailable') in none and rolling.get('maxSurge') in none:
                yield required(f'{at}.maxUnavailable', 'cannot be 0 when maxSurge is 0')
        if old is not None:
            yield from immutable('spec.selector', spec.get('selector'), get_path(old, 'spec.selector'))


KIND = Kind(
    resource=Resource('apps', 'v1', 'daemonsets', 'DaemonSet'),
    strategy=DaemonSetStrategy(),
    short=('ds',),
    categories=('all',),
    subresources=(Status(),),
    columns=(
        Col('Desired', number('status.desiredNumberScheduled'), 'integer', description='Nodes that should run it.'),
        Col('Current', number('status.currentNumberScheduled'), 'integer', description='Nodes that run it.'),
        Col('Ready', number('status.numberReady'), 'integer', description='Pods that are ready.'),
        Col(
            'Up-to-date', number('status.updatedNumberScheduled'), 'integer', description='Pods of the newest template.'
        ),
        Col('Available', number('status.numberAvailable'), 'integer', description='Pods ready for long enough.'),
        Col('Node Selector', labels_at('spec.template.spec.nodeSelector'), description='Labels that nodes must have.'),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
)
