"""ValidatingAdmissionPolicyBinding: where a policy holds, with which parameters."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.admissionregistration.validatingadmissionpolicy import default_match
from kapi.kinds.admissionregistration.webhooks import GROUP
from kapi.kinds.base import BuiltinStrategy
from kapi.kinds.printing import AGE, UNSET, text
from kapi.kinds.rules import one_of, required
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path
from kcore.meta.selectors import format_selector


class ValidatingAdmissionPolicyBindingStrategy(BuiltinStrategy):
    def default(self, obj: Obj) -> None:
        default_match(get_path(obj, 'spec.matchResources'))

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        if not spec.get('policyName'):
            yield required('spec.policyName')
        if not spec.get('validationActions'):
            yield required('spec.validationActions', 'at least one validation action is required')
        for i, action in enumerate(spec.get('validationActions') or ()):
            yield from one_of(f'spec.validationActions[{i}]', action, ('Audit', 'Deny', 'Warn'))


def param_ref(obj: Obj, _now: datetime) -> str:
    found = get_path(obj, 'spec.paramRef')
    if not found:
        return UNSET
    if found.get('name'):
        return f'{found.get("namespace") or "*"}/{found["name"]}'
    return UNSET if found.get('selector') is None else format_selector(found['selector'])


KIND = Kind(
    resource=Resource(
        GROUP, 'v1', 'validatingadmissionpolicybindings', 'ValidatingAdmissionPolicyBinding', namespaced=False
    ),
    strategy=ValidatingAdmissionPolicyBindingStrategy(),
    categories=('api-extensions',),
    columns=(
        Col('PolicyName', text('spec.policyName'), description='The policy.'),
        Col('ParamRef', param_ref, description='Its parameters.'),
        AGE,
    ),
)
