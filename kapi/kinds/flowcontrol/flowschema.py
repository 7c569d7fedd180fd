"""FlowSchema: which requests belong to which priority level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.printing import AGE, NONE, number, text
from kapi.kinds.rules import between, forbidden, invalid, one_of, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_condition, get_path, name_of

GROUP = 'flowcontrol.apiserver.k8s.io'
EXEMPT = 'exempt'
SUBJECTS = {
    'ServiceAccount': ('serviceAccount', ('namespace', 'name')),
    'User': ('user', ('name',)),
    'Group': ('group', ('name',)),
}
PRECEDENCE = 1000
PRECEDENCE_MAX = 10_000


class FlowSchemaStrategy(BuiltinStrategy):
    def default(self, obj: Obj) -> None:
        put_defaults(spec_of(obj), matchingPrecedence=PRECEDENCE)

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        precedence = spec.get('matchingPrecedence')
        yield from between('spec.matchingPrecedence', precedence, 1, PRECEDENCE_MAX)
        if precedence == 1 and new['metadata'].get('name') != EXEMPT:
            yield invalid('spec.matchingPrecedence', 1, "only the schema named 'exempt' may have matchingPrecedence 1")
        if not get_path(spec, 'priorityLevelConfiguration.name'):
            yield required('spec.priorityLevelConfiguration.name', 'must reference a priority level')
        if spec.get('distinguisherMethod') is not None:
            kinds = ('ByNamespace', 'ByUser')
            yield from one_of('spec.distinguisherMethod.type', spec['distinguisherMethod'].get('type'), kinds)
        for i, rule in enumerate(spec.get('rules') or ()):
            yield from _rule(f'spec.rules[{i}]', rule)


def _rule(at: str, rule: Obj) -> Iterator[Invalid]:
    if not rule.get('subjects'):
        yield required(f'{at}.subjects', 'subjects must contain at least one value')
    for i, subject in enumerate(rule.get('subjects') or ()):
        yield from _subject(f'{at}.subjects[{i}]', subject)
    resources, others = rule.get('resourceRules') or (), rule.get('nonResourceRules') or ()
    if not resources and not others:
        yield required(at, 'at least one of resourceRules and nonResourceRules has to be non-empty')
    for i, one in enumerate(resources):
        yield from _values(f'{at}.resourceRules[{i}]', one, ('verbs', 'apiGroups', 'resources'))
        if not one.get('namespaces') and not one.get('clusterScope'):
            text = 'resource rules that are not cluster scoped must supply at least one namespace'
            yield required(f'{at}.resourceRules[{i}].namespaces', text)
    for i, one in enumerate(others):
        yield from _values(f'{at}.nonResourceRules[{i}]', one, ('verbs', 'nonResourceURLs'))


def _values(at: str, rule: Obj, fields: Sequence[str]) -> Iterator[Invalid]:
    for field in fields:
        values = rule.get(field) or ()
        if not values:
            yield required(f'{at}.{field}', f'{field} must contain at least one value')
        elif '*' in values and len(values) > 1:
            yield invalid(f'{at}.{field}', values, f"if '*' is present, must not specify other {field}")


def _subject(at: str, subject: Obj) -> Iterator[Invalid]:
    """Exactly the field that the kind names, with what it takes to match somebody."""
    kind = subject.get('kind')
    yield from one_of(f'{at}.kind', kind, tuple(SUBJECTS))
    for name, (field, parts) in SUBJECTS.items():
        if name != kind:
            if subject.get(field) is not None:
                yield forbidden(f'{at}.{field}', f"{field} is forbidden when subject kind is not '{name}'")
        elif subject.get(field) is None:
            yield required(f'{at}.{field}', f"{field} is required when subject kind is '{name}'")
        else:
            for part in parts:
                if not subject[field].get(part):
                    yield required(f'{at}.{field}.{part}')


def _missing(obj: Obj, _now: datetime) -> str:
    found = get_condition(obj, 'Dangling')
    return str(found.get('status')) if found else '?'


KIND = Kind(
    resource=Resource(GROUP, 'v1', 'flowschemas', 'FlowSchema', namespaced=False),
    strategy=FlowSchemaStrategy(),
    subresources=(Status(),),
    row_order=lambda obj: ((obj.get('spec') or {}).get('matchingPrecedence') or 0, name_of(obj)),
    columns=(
        Col('PriorityLevel', text('spec.priorityLevelConfiguration.name'), description='Level it leads to.'),
        Col('MatchingPrecedence', number('spec.matchingPrecedence'), description='Lower is tried first.'),
        Col('DistinguisherMethod', text('spec.distinguisherMethod.type', NONE), description='How flows are split.'),
        AGE,
        Col('MissingPL', _missing, description='Whether its level does not exist.'),
    ),
)
