"""FlowSchema: which requests belong to which priority level."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.printing import AGE, NONE, number, text
from kapi.kinds.rules import between, one_of, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_condition, get_path

GROUP = 'flowcontrol.apiserver.k8s.io'
PRECEDENCE = 1000
PRECEDENCE_MAX = 10_000


class FlowSchemaStrategy(BuiltinStrategy):
    def default(self, obj: Obj) -> None:
        put_defaults(spec_of(obj), matchingPrecedence=PRECEDENCE)

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        yield from between('spec.matchingPrecedence', spec.get('matchingPrecedence'), 1, PRECEDENCE_MAX)
        if not get_path(spec, 'priorityLevelConfiguration.name'):
            yield required('spec.priorityLevelConfiguration.name', 'must reference a priority level')
        if spec.get('distinguisherMethod') is not None:
            kinds = ('ByNamespace', 'ByUser')
            yield from one_of('spec.distinguisherMethod.type', spec['distinguisherMethod'].get('type'), kinds)


def _missing(obj: Obj, _now: datetime) -> str:
    found = get_condition(obj, 'Dangling')
    return str(found.get('status')) if found else '?'


KIND = Kind(
    resource=Resource(GROUP, 'v1', 'flowschemas', 'FlowSchema', namespaced=False),
    strategy=FlowSchemaStrategy(),
    subresources=(Status(),),
    columns=(
        Col('PriorityLevel', text('spec.priorityLevelConfiguration.name'), description='Level it leads to.'),
        Col('MatchingPrecedence', number('spec.matchingPrecedence'), 'integer', description='Lower is tried first.'),
        Col('DistinguisherMethod', text('spec.distinguisherMethod.type', NONE), description='How flows are split.'),
        AGE,
        Col('MissingPL', _missing, description='Whether its level does not exist.'),
    ),
)
