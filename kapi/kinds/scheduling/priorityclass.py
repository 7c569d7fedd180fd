"""PriorityClass: a name for how important a pod is."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.base import PlainStrategy, put_defaults
from kapi.kinds.printing import AGE, flag, number, text
from kapi.kinds.rules import forbidden, one_of
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource

HIGHEST_USER_PRIORITY = 1_000_000_000
SYSTEM_PREFIX = 'system-'
SYSTEM_CLASSES = {'system-node-critical': 2_000_001_000, 'system-cluster-critical': 2_000_000_000}
_RESERVED = "priority class names with 'system-' prefix are reserved for system use only"


class PriorityClassStrategy(PlainStrategy):
    def default(self, obj: Obj) -> None:
        put_defaults(obj, preemptionPolicy='PreemptLowerPriority', value=0)

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        name, value = new['metadata'].get('name') or '', new.get('value') or 0
        if name.startswith(SYSTEM_PREFIX):
            if SYSTEM_CLASSES.get(name) != value:
                yield forbidden('metadata.name', _RESERVED)
        elif value > HIGHEST_USER_PRIORITY:
            detail = f'maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}'
            yield forbidden('value', detail)
        yield from one_of('preemptionPolicy', new.get('preemptionPolicy'), ('Never', 'PreemptLowerPriority'))
        for field in ('value', 'preemptionPolicy') if old is not None else ():
            if new.get(field) != (old or {}).get(field):
                yield forbidden(field, 'may not be changed in an update.')


KIND = Kind(
    resource=Resource('scheduling.k8s.io', 'v1', 'priorityclasses', 'PriorityClass', namespaced=False),
    strategy=PriorityClassStrategy(),
    short=('pc',),
    columns=(
        Col('Value', number('value'), 'integer', description='The priority.'),
        Col('Global-Default', flag('globalDefault'), 'boolean', description='Whether it is used when none is named.'),
        AGE,
        Col('PreemptionPolicy', text('preemptionPolicy'), description='Whether it may push others out.'),
    ),
)
