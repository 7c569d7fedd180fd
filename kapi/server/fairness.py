"""API Priority and Fairness: who is served first when everybody asks at once. Sans-IO but for the futures that wait.

A request is classified by the FlowSchema that matches first, which names a priority level and tells flows apart (by
user or namespace). A level has so many seats; what finds none waits in one of the level's queues, which flows share by
shuffle sharding: each flow is dealt a hand of queues and takes the shortest, so a flood fills its own hand and leaves
the queues of others empty. Seats that become free go round the queues. Full queues and long waits are 429.

Seats bound what waits for the store at once. What a server of one thread runs out of is its thread, so beside a seat a
request needs a place in the present turn of the event loop: a few begin in each, and of what waits, levels and then
queues take turns. A flood is thus answered no faster than it lets others through.
Differs from upstream: seats are not lent between levels, and every request takes one seat.
Source: apiserver pkg/util/flowcontrol, KEP-1040.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from kapi.authn.user import User
from kapi.authz.flow_defaults import LEVELS, SCHEMAS
from kapi.errors import TooManyRequests
from kapi.server.deadlines import Deadlines
from kapi.server.requestinfo import RequestInfo
from kapi.storage.cache import Cache

Obj = dict[str, Any]
GROUP = '/registry/flowcontrol.apiserver.k8s.io/'
SCHEMA_PREFIX, LEVEL_PREFIX = f'{GROUP}flowschemas/', f'{GROUP}prioritylevelconfigurations/'
QUEUE_WAIT_S_MAX = 15.0
"""A request that found no seat by then gets 429 (a quarter of the request deadline, as upstream)."""
RETRY_AFTER_S = 1
TURN_REQUESTS_MAX = 4
"""Requests that begin in one turn of the event loop, each some tenths of a millisecond of work. Fewer would let others
in sooner, but a turn may be long for another reason: a change that goes out to a thousand watchers."""
TICKETS_MAX = 4_096
"""Kinds of requests whose place is remembered; beyond it all are found anew."""
CATCH_ALL = 'catch-all'


class Turns:
    """How many requests may still begin in this turn of the event loop, and which levels have some waiting."""

    def __init__(self) -> None:
        self.deadlines = Deadlines()
        self._left = TURN_REQUESTS_MAX
        self._waiting: dict[Level, None] = {}

    def take(self) -> bool:
        """Take a place in this turn, if there is one."""
        if not self._left:
            return False
        if self._left == TURN_REQUESTS_MAX:
            asyncio.get_running_loop().call_soon(self._next)
        self._left -= 1
        return True

    def wait(self, level: Level) -> None:
        """`level` has a request that waits."""
        self._waiting[level] = None

    def _next(self) -> None:
        self._left = TURN_REQUESTS_MAX
        behind, self._waiting = self._waiting, {}
        while behind and self._left:
            level = next(iter(behind))
            del behind[level]
            admitted = level.admit()
            if level.waiting:
                # One without a seat to give is not asked again in this turn.
                (behind if admitted else self._waiting)[level] = None
        self._waiting = {**behind, **self._waiting}


@dataclass(slots=True, eq=False)
class Level:
    """One priority level at run time."""

    name: str
    uid: str
    seats: int
    exempt: bool = False
    queues: list[deque[asyncio.Future[None]]] = field(default_factory=list)
    hand: int = 8
    length_max: int = 50
    busy: int = 0
    turn: int = 0
    waiting: int = 0
    """Requests in all queues together."""
    turns: Turns = field(default_factory=Turns)

    async def enter(self, flow: str) -> None:
        """Take a seat, waiting for one if need be. Raises TooManyRequests."""
        if self.exempt:
            self.busy += 1
            return
        if not self.queues:
            if self.busy >= self.seats:
                raise _too_many()
            self.busy += 1
            return
        if self.busy < self.seats and not self.waiting and self.turns.take():
            self.busy += 1
            return
        queue = min((self.queues[i] for i in dealt(flow, len(self.queues), self.hand)), key=len)
        if len(queue) >= self.length_max:
            raise _too_many()
        seat: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(seat)
        self.waiting += 1
        self.turns.wait(self)
        try:
            async with asyncio.timeout(None) as limit:
                self.turns.deadlines.add(limit, QUEUE_WAIT_S_MAX)
                try:
                    await seat
                finally:
                    self.turns.deadlines.drop(limit)
        except BaseException as e:
            if seat.done() and not seat.cancelled():
                self.leave()  # given a seat and gone at the same moment
            elif seat in queue:
                queue.remove(seat)
                self.waiting -= 1
            if isinstance(e, TimeoutError):
                raise _too_many() from None
            raise

    def leave(self) -> None:
        self.busy -= 1
        while self.admit():
            pass

    def admit(self) -> bool:
        """Let the next one begin, if one waits and there is a seat and a place in this turn."""
        if not self.waiting or self.exempt or self.busy >= self.seats or not self.turns.take():
            return False
        seat = self._next()
        if seat is None:
            return False
        self.busy += 1
        seat.set_result(None)
        return True

    def _next(self) -> asyncio.Future[None] | None:
        """The head of the next queue in turn that has one."""
        for step in range(len(self.queues)):
            queue = self.queues[(self.turn + step) % len(self.queues)]
            while queue:
                seat = queue.popleft()
                self.waiting -= 1
                if not seat.done():
                    self.turn = (self.turn + step + 1) % len(self.queues)
                    return seat
        return None


def _too_many() -> TooManyRequests:
    return TooManyRequests('Too many requests, please try again later.', retry_after_s=RETRY_AFTER_S)


@lru_cache(TICKETS_MAX)
def dealt(flow: str, queues: int, hand: int) -> tuple[int, ...]:
    """The queues of a flow: `hand` different ones of `queues`, always the same for the same flow."""
    value = int.from_bytes(hashlib.blake2b(flow.encode(), digest_size=16).digest())
    left = list(range(queues))
    found = []
    for _ in range(min(hand, queues)):
        value, at = divmod(value, len(left))
        found.append(left.pop(at))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where a request belongs."""

    schema_uid: str
    level: Level
    flow: str


class Fairness:
    def __init__(self, cache: Cache, seats: int) -> None:
        self._schema_cache = cache.resource(SCHEMA_PREFIX)
        self._level_cache = cache.resource(LEVEL_PREFIX)
        self._seats = seats
        self.turns = Turns()
        self._seen: tuple[int, int] = (-1, -1)
        self._tickets: dict[tuple[str | tuple[str, ...], ...], Ticket] = {}
        self._levels: dict[str, Level] = {}
        self._schemas: list[Obj] = []

    def classify(self, info: RequestInfo, user: User) -> Ticket:
        self._refresh()
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
            spec = schema['spec']
            if any(_rule(r, info, user) for r in spec.get('rules') or ()):
                level = self._levels.get(spec['priorityLevelConfiguration']['name'])
                if level is not None:
                    name = schema['metadata']['name']
                    flow = f'{name}/{_distinguished(spec.get("distinguisherMethod"), info, user)}'
                    return Ticket(schema['metadata'].get('uid', ''), level, flow)
        return Ticket('', self._levels[CATCH_ALL], f'{CATCH_ALL}/{user.name}')

    def _refresh(self) -> None:
        seen = (self._schema_cache.changes, self._level_cache.changes)
        if seen == self._seen:
            return
        self._seen = seen
        self._tickets.clear()
        # The defaults hold under whatever is stored, so that a server is never without a catch-all.
        schemas = {s['metadata']['name']: s for s in SCHEMAS}
        schemas |= {e.obj['metadata']['name']: e.obj for e in self._schema_cache.select(SCHEMA_PREFIX)}
        order = sorted(schemas.values(), key=_precedence)
        levels = {o['metadata']['name']: o for o in LEVELS}
        levels |= {e.obj['metadata']['name']: e.obj for e in self._level_cache.select(LEVEL_PREFIX)}
        total = sum(_shares(o) for o in levels.values()) or 1
        self._levels = {n: self._level(n, o, total) for n, o in levels.items()}
        self._schemas = order

    def _level(self, name: str, obj: Obj, total: int) -> Level:
        spec, uid = obj['spec'], obj['metadata'].get('uid', '')
        level = self._levels.get(name) or Level(name, uid, 0, turns=self.turns)
        level.uid, level.exempt = uid, spec.get('type') == 'Exempt'
        level.seats = max(1, -(-self._seats * _shares(obj) // total))
        response = (spec.get('limited') or {}).get('limitResponse') or {}
        queuing = (response.get('queuing') or {}) if response.get('type') == 'Queue' else None
        wanted = int(queuing.get('queues') or 64) if queuing is not None else 0
        while len(level.queues) < wanted:
            level.queues.append(deque())
        while len(level.queues) > wanted and not level.queues[-1]:
            level.queues.pop()  # one with somebody in it stays until the next change
        if queuing is not None:
            level.hand, level.length_max = int(queuing.get('handSize') or 8), int(queuing.get('queueLengthLimit') or 50)
        return level


def _precedence(schema: Obj) -> tuple[int, str]:
    return int(schema['spec'].get('matchingPrecedence') or 1000), schema['metadata']['name']


def _shares(level: Obj) -> int:
    limited = level['spec'].get('limited') or {}
    return int(limited.get('nominalConcurrencyShares', 30)) if level['spec'].get('type') == 'Limited' else 0


def _distinguished(method: Mapping[str, str] | None, info: RequestInfo, user: User) -> str:
    match (method or {}).get('type'):
        case 'ByUser':
            return user.name
        case 'ByNamespace':
            return info.namespace
    return ''


def _rule(rule: Obj, info: RequestInfo, user: User) -> bool:
    if not any(_subject(s, user) for s in rule.get('subjects') or ()):
        return False
    if info.is_resource:
        return any(_resource(r, info) for r in rule.get('resourceRules') or ())
    return any(
        _has(r.get('verbs'), info.verb) and any(_path(p, info.path) for p in r.get('nonResourceURLs') or ())
        for r in rule.get('nonResourceRules') or ()
    )


def _subject(subject: Obj, user: User) -> bool:
    match subject.get('kind'):
        case 'User':
            return subject['user']['name'] in {'*', user.name}
        case 'Group':
            return subject['group']['name'] == '*' or subject['group']['name'] in user.groups
        case 'ServiceAccount':
            account = subject['serviceAccount']
            prefix = f'system:serviceaccount:{account["namespace"]}:'
            return user.name.startswith(prefix) and account['name'] in {'*', user.name.removeprefix(prefix)}
    return False


def _resource(rule: Obj, info: RequestInfo) -> bool:
    full = f'{info.plural}/{info.subresource}' if info.subresource else info.plural
    if not (_has(rule.get('verbs'), info.verb) and _has(rule.get('apiGroups'), info.group)
            and _has(rule.get('resources'), full)):  # fmt: skip
        return False
    return _has(rule.get('namespaces'), info.namespace) if info.namespace else bool(rule.get('clusterScope'))


def _has(values: Sequence[str] | None, wanted: str) -> bool:
    return any(v in {'*', wanted} for v in values or ())


def _path(pattern: str, path: str) -> bool:
    return pattern in {'*', path} or (pattern.endswith('*') and path.startswith(pattern[:-1]))
