"""MutatingAdmissionPolicy: changes in CEL that objects get. Generally available since 1.36."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.admissionregistration.validatingadmissionpolicy import default_match, match_constraints, param_kind
from kapi.kinds.admissionregistration.webhooks import GROUP
from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.printing import AGE, count_of
from kapi.kinds.rules import one_of, required
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource

PATCHES = {'ApplyConfiguration': 'applyConfiguration', 'JSONPatch': 'jsonPatch'}


class MutatingAdmissionPolicyStrategy(BuiltinStrategy):
    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        put_defaults(spec, failurePolicy='Fail', reinvocationPolicy='Never')
        default_match(spec.get('matchConstraints'))

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        if not spec.get('mutations'):
            yield required('spec.mutations', 'mutations must contain at least one item')
        for i, mutation in enumerate(spec.get('mutations') or ()):
            at, kind = f'spec.mutations[{i}]', mutation.get('patchType')
            yield from one_of(f'{at}.patchType', kind, tuple(PATCHES))
            field = PATCHES.get(kind, '')
            if field and not ((mutation.get(field) or {}).get('expression') or '').strip():
                yield required(f'{at}.{field}.expression')
        yield from one_of('spec.failurePolicy', spec.get('failurePolicy'), ('Fail', 'Ignore'))
        yield from one_of('spec.reinvocationPolicy', spec.get('reinvocationPolicy'), ('Never', 'IfNeeded'))
        yield from match_constraints(spec)


KIND = Kind(
    resource=Resource(GROUP, 'v1', 'mutatingadmissionpolicies', 'MutatingAdmissionPolicy', namespaced=False),
    strategy=MutatingAdmissionPolicyStrategy(),
    categories=('api-extensions',),
    columns=(
        Col('Mutations', count_of('spec.mutations'), 'integer', description='Number of changes.'),
        Col('ParamKind', param_kind, description='Kind of its parameters.'),
        AGE,
    ),
)
