"""PriorityLevelConfiguration: how much of the server a class of requests may use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.flowcontrol.flowschema import GROUP
from kapi.kinds.printing import AGE, NONE, text
from kapi.kinds.rules import between, forbidden, invalid, not_negative, one_of, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path

SHARES = 30
QUEUES, HAND_SIZE, QUEUE_LENGTH = 64, 8, 50
QUEUES_MAX = 10_000_000
HASH_BITS = 60
"""Of a flow's hash; that many hands of queues can be told apart."""


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
                yield from _limited(limited)
        elif spec.get('limited') is not None:
            yield forbidden('spec.limited', 'must be nil if the type is not Limited')
        if spec.get('exempt') is not None:
            if spec.get('type') == 'Limited':
                yield forbidden('spec.exempt', 'must be nil if the type is Limited')
            yield from _lent('spec.exempt', spec['exempt'])


def _lent(field: str, spec: Obj) -> Iterator[Invalid]:
    yield from not_negative(f'{field}.nominalConcurrencyShares', spec.get('nominalConcurrencyShares'))
    yield from between(f'{field}.lendablePercent', spec.get('lendablePercent'), 0, 100)


def _limited(limited: Obj) -> Iterator[Invalid]:
    yield from _lent('spec.limited', limited)
    borrowing = limited.get('borrowingLimitPercent')
    if borrowing is not None and borrowing < 0:
        text = 'if specified, must be a non-negative integer'
        yield invalid('spec.limited.borrowingLimitPercent', borrowing, text)
    at, response = 'spec.limited.limitResponse', limited.get('limitResponse') or {}
    yield from one_of(f'{at}.type', response.get('type'), ('Queue', 'Reject'))
    queuing = response.get('queuing')
    if response.get('type') == 'Reject' and queuing is not None:
        yield forbidden(f'{at}.queuing', "must be nil if limited.limitResponse.type is not 'Limited'")
    elif response.get('type') == 'Queue':
        if queuing is None:
            yield required(f'{at}.queuing', "must not be empty if limited.limitResponse.type is 'Limited'")
        else:
            yield from _queuing_rules(f'{at}.queuing', queuing)


def _queuing_rules(at: str, queuing: Obj) -> Iterator[Invalid]:
    queues, hand = queuing.get('queues', QUEUES), queuing.get('handSize', HAND_SIZE)
    for field, value in (('queueLengthLimit', queuing.get('queueLengthLimit', QUEUE_LENGTH)), ('queues', queues)):
        if value <= 0:
            yield invalid(f'{at}.{field}', value, 'must be positive')
    if queues > QUEUES_MAX:
        yield invalid(f'{at}.queues', queues, f'must not be greater than {QUEUES_MAX}')
    if hand <= 0:
        yield invalid(f'{at}.handSize', hand, 'must be positive')
    elif hand > queues:
        yield invalid(f'{at}.handSize', hand, f'should not be greater than queues ({queues})')
    elif math.ceil(math.log2(queues) * hand) > HASH_BITS:
        text = f'required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}'
        yield invalid(f'{at}.handSize', hand, text)


def _limit(name: str, field: str, description: str) -> Col:
    def cell(obj: Obj, _now: datetime) -> int | str:
        found = get_path(obj, f'spec.limited.{field}')
        return NONE if found is None else int(found)

    return Col(name, cell, description=description)


KIND = Kind(
    resource=Resource(GROUP, 'v1', 'prioritylevelconfigurations', 'PriorityLevelConfiguration', namespaced=False),
    strategy=PriorityLevelConfigurationStrategy(),
    subresources=(Status(),),
    columns=(
        Col('Type', text('spec.type'), description='Exempt or Limited.'),
        _limit('NominalConcurrencyShares', 'nominalConcurrencyShares', 'Its share of the requests in flight.'),
        _limit('Queues', 'limitResponse.queuing.queues', 'Number of queues.'),
        _limit('HandSize', 'limitResponse.queuing.handSize', 'Queues dealt to a flow.'),
        _limit('QueueLengthLimit', 'limitResponse.queuing.queueLengthLimit', 'Requests a queue holds.'),
        AGE,
    ),
)
