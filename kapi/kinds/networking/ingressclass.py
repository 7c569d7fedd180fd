"""IngressClass: which controller serves an ingress."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import BuiltinStrategy
from kapi.kinds.printing import AGE, NONE, text
from kapi.kinds.rules import immutable, required
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path


class IngressClassStrategy(BuiltinStrategy):
    def default(self, obj: Obj) -> None:
        parameters = get_path(obj, 'spec.parameters')
        if isinstance(parameters, dict) and parameters.get('scope') is None:
            parameters['scope'] = 'Cluster'

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        controller = get_path(new, 'spec.controller')
        if not controller:
            yield required('spec.controller')
        if old is not None:
            yield from immutable('spec.controller', controller, get_path(old, 'spec.controller'))


def _parameters(obj: Obj, _now: datetime) -> str:
    found = get_path(obj, 'spec.parameters')
    if not found:
        return NONE
    group = f'.{found["apiGroup"]}' if found.get('apiGroup') else ''
    return f'{found.get("kind", "")}{group}/{found.get("name", "")}'


KIND = Kind(
    resource=Resource('networking.k8s.io', 'v1', 'ingressclasses', 'IngressClass', namespaced=False),
    strategy=IngressClassStrategy(),
    columns=(
        Col('Controller', text('spec.controller'), description='Name of the controller.'),
        Col('Parameters', _parameters, description='Object with more settings.'),
        AGE,
    ),
)
