"""API Priority and Fairness: where which request belongs, and its way in.

A request is classified by the FlowSchema that matches first, which names a priority level and tells flows apart (by
user or namespace). What happens at the level is told in `levels.py`, and the share of the thread in `turns.py`.
Source: apiserver pkg/util/flowcontrol, KEP-1040.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kapi.authn.user import User
from kapi.authz.flow_defaults import LEVELS, MANDATORY, SCHEMAS
from kapi.flow import work
from kapi.flow.demand import Claim, Demand, share_out
from kapi.flow.levels import Level, Refused
from kapi.flow.matching import flow_of, matches
from kapi.flow.stats import Stats
from kapi.flow.turns import Turns
from kapi.server.requestinfo import RequestInfo
from kapi.storage.cache import Cache
from kcore.meta.objects import get_path

Obj = dict[str, Any]
GROUP = '/registry/flowcontrol.apiserver.k8s.io/'
SCHEMA_PREFIX, LEVEL_PREFIX = f'{GROUP}flowschemas/', f'{GROUP}prioritylevelconfigurations/'
TICKETS_MAX = 4_096
"""Kinds of requests whose place is remembered; beyond it all are found anew."""
CATCH_ALL = 'catch-all'
QUEUES, HAND_SIZE, QUEUE_LENGTH = 64, 8, 50


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where a request belongs."""

    schema_uid: str
    level: Level
    flow: str
    stats: Stats


class Seat:
    """What a request has taken."""

    __slots__ = ('_begun', '_monotonic', '_ticket', '_width')

    def __init__(self, ticket: Ticket, width: int, monotonic: Callable[[], float], begun: float) -> None:
        self._ticket: Ticket | None = ticket
        self._width = width
        self._monotonic = monotonic
        self._begun = begun
        stats = ticket.stats
        stats.dispatched += 1
        stats.executing += 1
        stats.executing_seats += width
        if width == 1:
            stats.widths.add_least(1.0)
        else:
            stats.widths.add(width)

    def leave(self) -> None:
        """Give it back; a second time is nothing."""
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            return
        stats = ticket.stats
        stats.executing -= 1
        stats.executing_seats -= self._width
        now = self._monotonic()
        stats.executions.add(now - self._begun)
        ticket.level.leave(self._width, now)


class Fairness:
    def __init__(self, cache: Cache, seats: int, monotonic: Callable[[], float]) -> None:
        self._schema_cache = cache.resource(SCHEMA_PREFIX)
        self._level_cache = cache.resource(LEVEL_PREFIX)
        self._seats = seats
        self._monotonic = monotonic
        self.turns = Turns(lambda: cache.told)
        self.stats: dict[tuple[str, str], Stats] = {}
        """By schema and level."""
        self.levels: dict[str, Level] = {}
        self.fair_fraction = 0.0
        self._seen: tuple[int, int] = (-1, -1)
        self._tickets: dict[tuple[str | tuple[str, ...], ...], Ticket] = {}
        self._schemas: list[Obj] = []

    async def enter(self, ticket: Ticket, width: int) -> Seat:
        """Wait for seats and for a place in a turn. Raises Refused."""
        level, stats = ticket.level, ticket.stats
        begun = self._monotonic()
        try:
            if level.enter(ticket.flow, width, begun):
                stats.waits.add_least(0.0)
                return Seat(ticket, width, self._monotonic, begun)
        except Refused as e:
            stats.refused[e.reason] += 1
            raise
        stats.waiting += 1
        stats.waiting_seats += width
        try:
            await level.wait(ticket.flow, width, begun)
        except BaseException as e:
            stats.refused[e.reason if isinstance(e, Refused) else 'cancelled'] += 1
            stats.lost_waits.add(self._monotonic() - begun)
            raise
        finally:
            stats.waiting -= 1
            stats.waiting_seats -= width
        stats.unaccommodated += 1
        now = self._monotonic()
        stats.waits.add(now - begun)
        return Seat(ticket, width, self._monotonic, now)

    def classify(self, info: RequestInfo, user: User) -> Ticket:
        self.refresh()
        # All that the rules and the distinguisher look at.
        path = '' if info.is_resource else info.path
        key = (user.name, user.groups, info.verb, info.group, info.plural, info.subresource, info.namespace, path)
        ticket = self._tickets.get(key)
        if ticket is None:
            if len(self._tickets) >= TICKETS_MAX:
                self._tickets.clear()
            ticket = self._tickets[key] = self._classify(info, user)
        return ticket

    def _classify(self, info: RequestInfo, user: User) -> Ticket:
        for schema in self._schemas:
            level = self.levels.get(level_of(schema))
            if level is not None and matches(schema, info, user):
                return self._ticket(schema['metadata'], level, flow_of(schema, info, user))
        return self._ticket({'name': CATCH_ALL}, self.levels[CATCH_ALL], user.name)

    def _ticket(self, schema: Obj, level: Level, flow: str) -> Ticket:
        name = schema['name']
        stats = self.stats.get((name, level.name))
        if stats is None:
            stats = self.stats[name, level.name] = Stats(name, level.name)
        return Ticket(schema.get('uid', ''), level, f'{name}/{flow}', stats)

    def refresh(self) -> None:
        """Take in what has changed of the stored objects."""
        seen = (self._schema_cache.changes, self._level_cache.changes)
        if seen == self._seen:
            return
        self._seen = seen
        self._tickets.clear()
        # The mandatory ones hold under whatever is stored, so that a server is never without a catch-all.
        schemas = {s['metadata']['name']: s for s in SCHEMAS if s['metadata']['name'] in MANDATORY}
        schemas |= {e.obj['metadata']['name']: e.obj for e in self._schema_cache.select(SCHEMA_PREFIX)}
        self._schemas = sorted(schemas.values(), key=_precedence)
        levels = {o['metadata']['name']: o for o in LEVELS if o['metadata']['name'] in MANDATORY}
        levels |= {e.obj['metadata']['name']: e.obj for e in self._level_cache.select(LEVEL_PREFIX)}
        total = sum(_share(o, 'nominalConcurrencyShares') for o in levels.values()) or 1
        self.levels = {n: self._level(n, o, total) for n, o in levels.items()}
        self._share_out()
        kept = {(s['metadata']['name'], level_of(s)) for s in self._schemas}
        self.stats = {key: s for key, s in self.stats.items() if key in kept or s.waiting or s.executing}

    def _level(self, name: str, obj: Obj, total: int) -> Level:
        spec = obj['spec']
        level = self.levels.get(name) or Level(name, self.turns, Demand(self._monotonic))
        level.uid, level.exempt = obj['metadata'].get('uid', ''), spec.get('type') == 'Exempt'
        level.nominal = -(-self._seats * _share(obj, 'nominalConcurrencyShares') // total)
        level.lower = level.nominal - round(level.nominal * _share(obj, 'lendablePercent') / 100)
        borrowing = get_path(obj, 'spec.limited.borrowingLimitPercent')
        level.upper = self._seats
        if borrowing is not None and not level.exempt:
            level.upper = min(self._seats, level.nominal + round(level.nominal * int(borrowing) / 100))
        response = (spec.get('limited') or {}).get('limitResponse') or {}
        queuing = (response.get('queuing') or {}) if response.get('type') == 'Queue' else None
        level.queue_count = int(queuing.get('queues') or QUEUES) if queuing is not None else 0
        level.width_max = 1
        if queuing is not None:
            level.hand = int(queuing.get('handSize') or HAND_SIZE)
            level.length_max = int(queuing.get('queueLengthLimit') or QUEUE_LENGTH)
            level.width_max = work.width_max(level.nominal, level.hand)
        return level

    def counts(self) -> dict[str, Counter[str]]:
        """Level → requests by what became of them: `dispatched`, or the reason why they were refused."""
        found: dict[str, Counter[str]] = {}
        for s in self.stats.values():
            found.setdefault(s.level, Counter()).update({'dispatched': s.dispatched, **s.refused})
        return found

    def adjust(self) -> None:
        """Lend seats by what was asked for since the last time."""
        self.refresh()
        for level in self.levels.values():
            level.demand.look()
        self._share_out()

    def _share_out(self) -> None:
        levels = list(self.levels.values())
        claims = []
        for level in levels:
            lower = max(level.lower, min(level.nominal, level.demand.high))
            claims.append(Claim(lower, max(level.upper, lower), max(lower, level.demand.smoothed)))
        seats, self.fair_fraction = share_out(sum(lv.nominal for lv in levels), claims)
        for level, limit in zip(levels, seats, strict=True):
            level.limit = round(limit)
            if level.ready():
                self.turns.join(level)


def level_of(schema: Obj) -> str:
    """The name of the level that a schema leads to."""
    return str(schema['spec']['priorityLevelConfiguration']['name'])


def _precedence(schema: Obj) -> tuple[int, str]:
    return int(schema['spec'].get('matchingPrecedence') or 1000), schema['metadata']['name']


def _share(level: Obj, field: str) -> int:
    spec = level['spec']
    kind, default = ('limited', 30) if spec.get('type') == 'Limited' else ('exempt', 0)
    return int((spec.get(kind) or {}).get(field, default if field == 'nominalConcurrencyShares' else 0))
