"""ValidatingAdmissionPolicy: rules in CEL that objects must meet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.admissionregistration.webhooks import GROUP, match_rule
from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.printing import AGE, UNSET, count_of
from kapi.kinds.rules import one_of, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path


class ValidatingAdmissionPolicyStrategy(BuiltinStrategy):
    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        put_defaults(spec, failurePolicy='Fail')
        default_match(spec.get('matchConstraints'))

    def observe(self, new: Obj) -> None:
        """Admission has compiled and checked the expressions; clients wait for this before they rely on the policy."""
        status = new.setdefault('status', {})
        status['observedGeneration'] = new['metadata']['generation']
        status.setdefault('typeChecking', {})

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        if not spec.get('validations') and not spec.get('auditAnnotations'):
            yield required('spec.validations', 'validations or auditAnnotations must contain at least one item')
        for i, validation in enumerate(spec.get('validations') or ()):
            if not (validation.get('expression') or '').strip():
                yield required(f'spec.validations[{i}].expression', 'expression is not specified')
        yield from one_of('spec.failurePolicy', spec.get('failurePolicy'), ('Fail', 'Ignore'))
        yield from match_constraints(spec)


def match_constraints(spec: Obj) -> Iterator[Invalid]:
    """What every policy says of the writes that it is about."""
    match = spec.get('matchConstraints')
    if match is None:
        yield required('spec.matchConstraints')
    elif not match.get('resourceRules'):
        yield required('spec.matchConstraints.resourceRules')
    for i, rule in enumerate((match or {}).get('resourceRules') or ()):
        yield from match_rule(f'spec.matchConstraints.resourceRules[{i}]', rule)


def default_match(match: Obj | None) -> None:
    if isinstance(match, dict):
        put_defaults(match, matchPolicy='Equivalent', namespaceSelector={}, objectSelector={})
        for field in ('resourceRules', 'excludeResourceRules'):
            for rule in match.get(field) or ():
                put_defaults(rule, scope='*')


def param_kind(obj: Obj, _now: datetime) -> str:
    found = get_path(obj, 'spec.paramKind')
    return f'{found.get("apiVersion", "")}/{found.get("kind", "")}' if found else UNSET


KIND = Kind(
    resource=Resource(GROUP, 'v1', 'validatingadmissionpolicies', 'ValidatingAdmissionPolicy', namespaced=False),
    strategy=ValidatingAdmissionPolicyStrategy(),
    categories=('api-extensions',),
    subresources=(Status(),),
    columns=(
        Col('Validations', count_of('spec.validations'), 'integer', description='Number of rules.'),
        Col('ParamKind', param_kind, description='Kind of its parameters.'),
        AGE,
    ),
)
