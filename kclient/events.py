"""Event recorder: never blocks, bounded, counts repetitions instead of repeating.

Theory: the same (source, object, type, reason, message) becomes one Event whose `count` grows; from the tenth different
message of one reason on they are combined into one, until ten minutes pass without any; each object has a bucket of 25
events, refilled by one every five minutes, and what the bucket holds back still counts. `Correlator` is pure.
Source: client-go tools/record/events_cache.go.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NoReturn

import structlog

from kclient.api import Client
from kclient.errors import AlreadyExists, ApiError, ClientError, Forbidden, NotFound
from kclient.model import Obj
from kcore.env import Env
from kcore.meta.gvk import EVENTS
from kcore.meta.times import format_time
from kcore.tasks import start

log = structlog.get_logger('kclient.events')

QUEUE_MAX = 1_000
"""Events waiting to be sent; at the limit the newest is dropped and counted."""
CACHE_MAX = 4_096
"""Distinct events and sources remembered; the least recently used is forgotten (its next event starts at count 1)."""
MESSAGE_MAX = 1_024
"""Characters of a message; longer ones are cut."""
SIMILAR_MAX = 10
"""From this many different messages of one reason on, they are combined."""
COMBINED = '(combined from similar events)'
SIMILAR_WINDOW_S = 600.0
BURST = 25
REFILL_PER_S = 1 / 300
ATTEMPTS_MAX = 5
"""Tries to send one event before it is dropped."""
SETTLE_S = 0.5
"""How long the first of a group of events waits for the others: the API server has what they tell of done first."""
FLUSH_S = 1.0
"""How long an orderly stop may take to send what is still waiting."""
SENDERS = 8
"""Objects whose events are sent at once; those of one object go one after the other, in order."""

EventType = Literal['Normal', 'Warning']


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened to an object."""

    involved: Obj
    """The `involvedObject` reference."""
    type: EventType
    reason: str
    message: str
    at: datetime


@dataclass(slots=True)
class _Known:
    name: str
    count: int
    first: datetime


class _Lru(OrderedDict[tuple[str, ...], object]):
    def remember(self, key: tuple[str, ...], value: object) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > CACHE_MAX:
            self.popitem(last=False)


class Correlator:
    """Pure: a fact in, the Event to create or the patch to send out, or None when the object talks too much."""

    def __init__(self, component: str, host: str) -> None:
        self._component, self._host = component, host
        self._known = _Lru()
        self._similar = _Lru()
        self._buckets = _Lru()

    def take(self, fact: Fact, now: float, suffix: str) -> tuple[str, Obj, int] | None:
        """(name, Event, count): count 1 is a create, more is a patch of the Event `name`.

        now: monotonic seconds. suffix: hexadecimal text that makes the Event's name unique.
        """
        message = self._message(fact, now)
        key = self._key(fact, message)
        known = self._known.get(key)
        if not isinstance(known, _Known):
            known = _Known(f'{fact.involved.get("name", "")}.{suffix}', 0, fact.at)
        known.count += 1
        self._known.remember(key, known)
        # Last, so that what is not told still counts.
        return (known.name, self._event(fact, message, known), known.count) if self._allowed(fact, now) else None

    def forget(self, fact: Fact, message: str) -> None:
        """The server lost the Event (its TTL passed): start it anew."""
        self._known.pop(self._key(fact, message), None)

    def _key(self, fact: Fact, message: str) -> tuple[str, ...]:
        """What makes two facts one Event: all combined messages of a reason share theirs."""
        same = COMBINED if message.startswith(COMBINED) else message
        field_path = str(fact.involved.get('fieldPath') or '')
        return (*self._object_key(fact), field_path, fact.type, fact.reason, same)

    def _object_key(self, fact: Fact) -> tuple[str, ...]:
        ref = fact.involved
        return tuple(str(ref.get(k) or '') for k in ('kind', 'namespace', 'name', 'uid', 'apiVersion'))

    def _allowed(self, fact: Fact, now: float) -> bool:
        """Token bucket per object, kept as the time at which it was last empty."""
        key = self._object_key(fact)
        empty_at = self._buckets.get(key)
        base = max(empty_at if isinstance(empty_at, float) else float('-inf'), now - BURST / REFILL_PER_S)
        after = base + 1 / REFILL_PER_S
        if after > now + 1e-6:
            return False
        self._buckets.remember(key, after)
        return True

    def _message(self, fact: Fact, now: float) -> str:
        text = fact.message[:MESSAGE_MAX]
        key = (*self._object_key(fact), fact.type, fact.reason)
        entry = self._similar.get(key)
        last, messages = entry if isinstance(entry, tuple) else (now, frozenset())
        if now - last > SIMILAR_WINDOW_S:
            messages = frozenset()
        told = text in messages or len(messages) < SIMILAR_MAX - 1
        self._similar.remember(key, (now, messages | {text} if told else messages))
        return text if told else f'{COMBINED}: {text}'[:MESSAGE_MAX]

    def _event(self, fact: Fact, message: str, known: _Known) -> Obj:
        source = {'component': self._component} | ({'host': self._host} if self._host else {})
        return {
            'apiVersion': 'v1',
            'kind': 'Event',
            'metadata': {'name': known.name, 'namespace': fact.involved.get('namespace') or 'default'},
            'involvedObject': fact.involved,
            'type': fact.type,
            'reason': fact.reason,
            'message': message,
            'source': source,
            'reportingComponent': self._component,
            'reportingInstance': self._host,
            'firstTimestamp': format_time(known.first),
            'lastTimestamp': format_time(fact.at),
            'count': known.count,
        }


def reference(obj: Obj) -> Obj:
    """ObjectReference of an object that carries its apiVersion and kind."""
    meta = obj.get('metadata') or {}
    pairs = {
        'kind': obj.get('kind'), 'namespace': meta.get('namespace'), 'name': meta.get('name'), 'uid': meta.get('uid'),
        'apiVersion': obj.get('apiVersion'), 'resourceVersion': meta.get('resourceVersion'),
        'fieldPath': obj.get('fieldPath'),
    }  # fmt: skip
    return {k: v for k, v in pairs.items() if v}


class Pace:
    """Pure: a bucket of `burst` events that fills again at `per_s`; 0: no limit."""

    def __init__(self, per_s: float = 0.0, burst: int = 1) -> None:
        self._per_s, self._burst = per_s, burst
        self._empty_at = float('-inf')

    def take(self, now: float) -> float:
        """The seconds until the next event may go; it is reckoned as sent. now: monotonic seconds."""
        if not self._per_s:
            return 0.0
        self._empty_at = max(self._empty_at, now - self._burst / self._per_s) + 1 / self._per_s
        return max(0.0, self._empty_at - now)


class EventRecorder:
    """`event` from anywhere on the loop; `run` in a task sends. Without `run` events wait, up to QUEUE_MAX."""

    def __init__(self, client: Client, env: Env, component: str, host: str = '', *, pace: Pace | None = None) -> None:
        self._client, self._env, self._pace = client, env, pace or Pace()
        self._correlator = Correlator(component, host)
        self._queue: deque[Fact] = deque()
        self._objects: deque[deque[Fact]] = deque()
        """What is being sent: the facts of one object in each."""
        self._wake = asyncio.Event()
        self.dropped = 0
        """Events lost to the limits."""

    def event(self, obj: Obj, type_: EventType, reason: str, message: str, *, field_path: str = '') -> None:
        """Record; `obj` needs apiVersion, kind and metadata. Never blocks, never raises."""
        if len(self._queue) >= QUEUE_MAX:
            self.dropped += 1
            return
        involved = reference(obj) | ({'fieldPath': field_path} if field_path else {})
        self._queue.append(Fact(involved, type_, reason, message, self._env.clock.wall()))
        self._wake.set()

    async def run(self) -> NoReturn:
        """Send what is recorded, in groups, for ever. Cancelled, it first sends what waits, for FLUSH_S at most."""
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(SETTLE_S)
                await self._send_waiting()
        finally:
            await self._flush()

    async def _flush(self) -> None:
        try:
            with contextlib.suppress(TimeoutError):  # Python before 3.11.3 lets out our own cancellation instead
                async with asyncio.timeout(FLUSH_S):
                    await self._send_waiting()
        finally:
            if lost := len(self._queue) + sum(map(len, self._objects)):
                self.dropped += lost
                log.warning('events lost at the end', count=lost)

    async def _send_waiting(self) -> None:
        self._wake.clear()
        self._objects.extend(self._by_object())
        self._queue.clear()
        if not self._objects:
            return
        async with asyncio.TaskGroup() as group:
            for n in range(min(SENDERS, len(self._objects))):
                start(group, f'event sender {n}', self._send_all())

    def _by_object(self) -> Iterable[deque[Fact]]:
        found: dict[str, deque[Fact]] = {}
        for fact in self._queue:
            found.setdefault(fact.involved.get('uid') or fact.involved.get('name') or '', deque()).append(fact)
        return found.values()

    async def _send_all(self) -> None:
        while self._objects:
            facts = self._objects.popleft()
            try:
                while facts:
                    await self._send(facts.popleft())
            finally:
                if facts:  # cancelled: what is left is for the flush
                    self._objects.append(facts)

    async def _send(self, fact: Fact) -> None:
        taken = self._correlator.take(fact, self._env.clock.monotonic(), self._env.new_uid().replace('-', '')[:16])
        if taken is None:
            self.dropped += 1
            return
        await asyncio.sleep(self._pace.take(self._env.clock.monotonic()))
        name, event, count = taken
        for attempt in range(ATTEMPTS_MAX):
            try:
                await self._write(name, event, count)
            except (Forbidden, AlreadyExists) as e:  # a namespace that goes away, or sent before we heard of it
                log.debug('event refused', err=str(e))
                return
            except NotFound:
                self._correlator.forget(fact, event['message'])
                count = 1
            except ApiError as e:
                if 400 <= e.code < 500 and e.code != 429:
                    log.warning('event refused', err=str(e))
                    return
                await asyncio.sleep(min(10.0, 0.2 * 2**attempt) * (1 + self._env.rng.random()))
            except ClientError:
                break
            else:
                return
        self.dropped += 1

    async def _write(self, name: str, event: Obj, count: int) -> None:
        if count == 1:
            await self._client.create(EVENTS, event)
            return
        change = {k: event[k] for k in ('count', 'lastTimestamp', 'message')}
        await self._client.patch(EVENTS, name, change, event['metadata']['namespace'])
