"""MutatingAdmissionPolicyBinding: where a policy works, with which parameters."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.admissionregistration.validatingadmissionpolicy import default_match
from kapi.kinds.admissionregistration.validatingadmissionpolicybinding import param_ref
from kapi.kinds.admissionregistration.webhooks import GROUP
from kapi.kinds.base import BuiltinStrategy
from kapi.kinds.printing import AGE, text
from kapi.kinds.rules import required
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path


class MutatingAdmissionPolicyBindingStrategy(BuiltinStrategy):
    def default(self, obj: Obj) -> None:
        default_match(get_path(obj, 'spec.matchResources'))

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        if not (new.get('spec') or {}).get('policyName'):
            yield required('spec.policyName')


KIND = Kind(
    resource=Resource(
        GROUP, 'v1', 'mutatingadmissionpolicybindings', 'MutatingAdmissionPolicyBinding', namespaced=False
    ),
    strategy=MutatingAdmissionPolicyBindingStrategy(),
    categories=('api-extensions',),
    columns=(
        Col('PolicyName', text('spec.policyName'), description='The policy.'),
        Col('ParamRef', param_ref, description='Its parameters.'),
        AGE,
    ),
)
