"""PriorityLevelConfiguration: how much of the server a class of requests may use."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.flowcontrol.flowschema import GROUP
from kapi.kinds.printing import AGE, NONE, Cell, text
from kapi.kinds.rules import not_negative, one_of, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path

SHARES = 30
QUEUES, HAND_SIZE, QUEUE_LENGTH = 64, 8, 50


class PriorityLevelConfigurationStrategy(BuiltinStrategy):
    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        limited = spec.get('limited')
        if isinstance(limited, dict):
            put_defaults(limited, nominalConcurrencyShares=SHARES, lendablePercent=0)
            queuing = (limited.get('limitResponse') or {}).get('queuing')
            if isinstance(queuing, dict):
                put_defaults(queuing, queues=QUEUES, handSize=HAND_SIZE, queueLengthLimit=QUEUE_LENGTH)
        if spec.get('type') == 'Exempt':
            put_defaults(spec.setdefault('exempt', {}), nominalConcurrencyShares=0, lendablePercent=0)

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        yield from one_of('spec.type', spec.get('type'), ('Exempt', 'Limited'))
        if spec.get('type') == 'Limited':
            limited = spec.get('limited')
            if limited is None:
                yield required('spec.limited', 'must not be empty when type is Limited')
            else:
                shares = limited.get('nominalConcurrencyShares')
                yield from not_negative('spec.limited.nominalConcurrencyShares', shares)
                kind = get_path(limited, 'limitResponse.type')
                yield from one_of('spec.limited.limitResponse.type', kind, ('Queue', 'Reject'))


def _shares(obj: Obj, _now: datetime) -> str:
    for field in ('limited', 'exempt'):
        found = get_path(obj, f'spec.{field}.nominalConcurrencyShares')
        if found is not None:
            return str(found)
    return NONE


def _queuing(field: str) -> Cell:
    return text(f'spec.limited.limitResponse.queuing.{field}', NONE)


KIND = Kind(
    resource=Resource(GROUP, 'v1', 'prioritylevelconfigurations', 'PriorityLevelConfiguration', namespaced=False),
    strategy=PriorityLevelConfigurationStrategy(),
    subresources=(Status(),),
    columns=(
        Col('Type', text('spec.type'), description='Exempt or Limited.'),
        Col('NominalConcurrencyShares', _shares, description='Its share of the requests in flight.'),
        Col('Queues', _queuing('queues'), description='Number of queues.'),
        Col('HandSize', _queuing('handSize'), description='Queues dealt to a flow.'),
        Col('QueueLengthLimit', _queuing('queueLengthLimit'), description='Requests a queue holds.'),
        AGE,
    ),
)
