"""Lease: who holds something, and until when; node heartbeats and leader election live on it."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.base import PlainStrategy
from kapi.kinds.printing import AGE, text
from kapi.kinds.rules import invalid
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta import gvk


class LeaseStrategy(PlainStrategy):
    create_on_update = True
    unconditional_update = False

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        duration = spec.get('leaseDurationSeconds')
        if duration is not None and duration <= 0:
            yield invalid('spec.leaseDurationSeconds', duration, 'must be greater than 0')
        transitions = spec.get('leaseTransitions')
        if transitions is not None and transitions < 0:
            yield invalid('spec.leaseTransitions', transitions, 'must be greater than or equal to 0')


KIND = Kind(
    resource=gvk.LEASES,
    strategy=LeaseStrategy(),
    columns=(Col('Holder', text('spec.holderIdentity'), description='Who holds it now.'), AGE),
)
