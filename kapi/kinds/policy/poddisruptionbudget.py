"""PodDisruptionBudget: how many pods an eviction may take away."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from kapi.kinds.base import BuiltinStrategy
from kapi.kinds.printing import AGE, number, text
from kapi.kinds.rules import int_or_percent, invalid, label_selector, one_of
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource


class PodDisruptionBudgetStrategy(BuiltinStrategy):
    first_status = MappingProxyType(
        dict.fromkeys(('currentHealthy', 'desiredHealthy', 'disruptionsAllowed', 'expectedPods'), 0)
    )
    unconditional_update = False

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        low, high = spec.get('minAvailable'), spec.get('maxUnavailable')
        if low is not None and high is not None:
            yield invalid('spec', spec, 'minAvailable and maxUnavailable cannot be both set')
        for field, value in (('minAvailable', low), ('maxUnavailable', high)):
            if value is not None:
                yield from int_or_percent(f'spec.{field}', value)
        yield from label_selector('spec.selector', spec.get('selector'))
        policy = spec.get('unhealthyPodEvictionPolicy')
        yield from one_of('spec.unhealthyPodEvictionPolicy', policy, ('AlwaysAllow', 'IfHealthyBudget'), need=False)


KIND = Kind(
    resource=Resource('policy', 'v1', 'poddisruptionbudgets', 'PodDisruptionBudget'),
    strategy=PodDisruptionBudgetStrategy(),
    short=('pdb',),
    subresources=(Status(),),
    columns=(
        Col('Min Available', text('spec.minAvailable', 'N/A'), description='Pods that must stay.'),
        Col('Max Unavailable', text('spec.maxUnavailable', 'N/A'), description='Pods that may be gone.'),
        Col('Allowed Disruptions', number('status.disruptionsAllowed'), 'integer', description='Evictions possible.'),
        AGE,
    ),
)
