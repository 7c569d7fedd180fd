"""Leader election by a Lease object, with fencing.

Theory: candidates never compare clocks of two machines. A candidate takes over once *it* has seen the same record for
`lease_duration_s`; the leader stops `renew_deadline_s` after the *start* of its last successful renewal, by its own
monotonic clock. The difference is the safety margin: `lead` is cancelled, and `check` refuses writes, before anybody
else can have taken over, even if this process was stopped (SIGSTOP) meanwhile.
Source: client-go tools/leaderelection/leaderelection.go. Differs: `check`; rejoins instead of exiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

import structlog

from kclient.api import Client
from kclient.errors import AlreadyExists, ClientError, Conflict, Deposed, NotFound
from kclient.model import Obj
from kcore.backoff import Backoff
from kcore.env import Env
from kcore.meta.gvk import LEASES
from kcore.meta.times import format_micro
from kcore.tasks import start_detached, stop

log = structlog.get_logger('kclient.election')

JITTER = 0.2
"""Retries of a candidate are stretched by up to this share, so that candidates do not collide for ever."""
FIRST_CONTACT_S = 0.05
"""First pause while the API never answered usefully, doubling up to the retry period: a cluster that starts should
not wait for a candidate that came a moment before its API server."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. Raises ValueError when the margins do not hold."""

    lease_duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0

    def __post_init__(self) -> None:
        if self.retry_period_s <= 0:
            raise ValueError('retry_period_s must be > 0')
        if self.lease_duration_s <= self.renew_deadline_s:
            raise ValueError('lease_duration_s must be greater than renew_deadline_s')
        if self.renew_deadline_s <= (1 + JITTER) * self.retry_period_s:
            raise ValueError(f'renew_deadline_s must be greater than {1 + JITTER} × retry_period_s')


class Observer:
    """Pure: what a candidate knows of the lease, and since when by its own monotonic clock."""

    def __init__(self, identity: str, timing: Timing) -> None:
        self._identity, self._timing = identity, timing
        self._seen: tuple[str, str] | None = None
        self._since = 0.0

    def observe(self, lease: Obj, now: float) -> None:
        """Note a Lease as read at `now` (monotonic seconds)."""
        spec = lease.get('spec') or {}
        record = (str(spec.get('holderIdentity') or ''), str(spec.get('renewTime') or ''))
        if record != self._seen:
            self._seen, self._since = record, now

    @property
    def holder(self) -> str:
        return self._seen[0] if self._seen else ''

    def may_take(self, lease: Obj, now: float) -> bool:
        """Whether the lease is free, ours, or unchanged for the whole of its holder's duration."""
        holder = self.holder
        if holder in ('', self._identity):
            return True
        spec = lease.get('spec') or {}
        duration = max(float(spec.get('leaseDurationSeconds') or 0), self._timing.lease_duration_s)
        return now - self._since > duration


def claim(lease: Obj, identity: str, timing: Timing, now: datetime) -> Obj:
    """Pure: the Lease as `identity` writes it to take or renew it; unknown fields are kept."""
    spec = dict(lease.get('spec') or {})
    stamp = format_micro(now)
    if spec.get('holderIdentity') != identity:
        spec['acquireTime'] = stamp
        # The first holder of a new lease is no transition.
        if 'metadata' in lease and 'resourceVersion' in lease['metadata']:
            spec['leaseTransitions'] = int(spec.get('leaseTransitions') or 0) + 1
    spec.setdefault('leaseTransitions', 0)
    spec |= {
        'holderIdentity': identity,
        'leaseDurationSeconds': max(1, round(timing.lease_duration_s)),
        'renewTime': stamp,
    }
    return {**lease, 'spec': spec}


class LeaderElector:
    """Runs `lead` while this identity holds the lease."""

    def __init__(
        self,
        client: Client,
        env: Env,
        name: str,
        namespace: str,
        identity: str,
        *,
        timing: Timing | None = None,
    ) -> None:
        self._client, self._env = client, env
        self._name, self._namespace, self._identity = name, namespace, identity
        self.timing = timing if timing is not None else Timing()
        self._observer = Observer(identity, self.timing)
        self._lease: Obj | None = None
        self._valid_until = float('-inf')
        self._met = False
        self.transitions = 0
        """Times that this elector became leader."""

    @property
    def leading(self) -> bool:
        """Whether a write now is certainly made while nobody else can hold the lease."""
        return self._env.clock.monotonic() < self._valid_until

    @property
    def holder(self) -> str:
        """The last holder seen, '' when unknown."""
        return self._observer.holder

    def check(self) -> float:
        """For `Client.guarded`: seconds for which the lease is certainly ours. Raises Deposed when it is not."""
        left = self._valid_until - self._env.clock.monotonic()
        if left <= 0:
            raise Deposed(f'{self._identity} does not hold lease {self._namespace}/{self._name} for certain any more')
        return left

    async def run(self, lead: Callable[[], Awaitable[None]]) -> NoReturn:
        """Compete, lead, and on loss compete again. An exception of `lead` ends it; cancellation releases the lease."""
        while True:
            await self._win()
            self.transitions += 1
            log.info('leadership gained', object=f'{self._namespace}/{self._name}', identity=self._identity)
            task = start_detached(f'leading {self._name}', _as_coroutine(lead))
            try:
                await self._hold(task)
            finally:
                # Order matters: nothing of ours acts any more when the lease is given back.
                await _stopped(task)
                await self._release()
            log.warning('leadership lost', object=f'{self._namespace}/{self._name}', identity=self._identity)

    async def _win(self) -> None:
        """Try until the lease is ours."""
        meeting = Backoff(FIRST_CONTACT_S, self.timing.retry_period_s, self._env.rng, jitter=JITTER)
        won = await self._try()
        while not won:
            usual = self.timing.retry_period_s * (1 + JITTER * self._env.rng.random())
            await asyncio.sleep(usual if self._met else meeting.next())
            won = await self._try()

    async def _hold(self, task: asyncio.Task[None]) -> None:
        """Renew until the deadline passes without success (returns) or `lead` ends (raises what it raised)."""
        monotonic = self._env.clock.monotonic
        retry_at = monotonic() + self.timing.retry_period_s
        while monotonic() < self._valid_until:
            done, _ = await asyncio.wait({task}, timeout=max(0.0, min(retry_at, self._valid_until) - monotonic()))
            if done:
                task.result()
                raise RuntimeError(f'the work under lease {self._name} returned')
            retry_at = monotonic() + self.timing.retry_period_s
            try:
                # A renewal that hangs must not outlive the deadline; one that starts after it must not be tried.
                async with asyncio.timeout(self._valid_until - monotonic()):
                    renewed = await self._try()
            except TimeoutError:
                return
            if not renewed and self._observer.holder not in ('', self._identity):
                self._valid_until = float('-inf')

    async def _try(self) -> bool:
        """Take or renew once. False when somebody else holds the lease or the API cannot be reached."""
        try:
            won = await self._acquire()
        except Conflict:
            self._lease, self._met = None, True
            return False
        except ClientError as e:
            self._lease = None
            log.warning('lease could not be renewed', object=f'{self._namespace}/{self._name}', err=str(e))
            return False
        self._met = True
        return won

    async def _acquire(self) -> bool:
        lease = self._lease
        if lease is None:
            try:
                lease = await self._client.get(LEASES, self._name, self._namespace)
            except NotFound:
                return await self._create()
            self._observer.observe(lease, self._env.clock.monotonic())
            if not self._observer.may_take(lease, self._env.clock.monotonic()):
                return False
        began = self._env.clock.monotonic()
        wanted = claim(lease, self._identity, self.timing, self._env.clock.wall())
        self._adopt(await self._client.update(LEASES, wanted), began)
        return True

    async def _create(self) -> bool:
        began = self._env.clock.monotonic()
        empty: Obj = {'metadata': {'name': self._name, 'namespace': self._namespace}}
        try:
            made = await self._client.create(LEASES, claim(empty, self._identity, self.timing, self._env.clock.wall()))
        except AlreadyExists:
            return False
        self._adopt(made, began)
        return True

    def _adopt(self, lease: Obj, began: float) -> None:
        self._lease = lease
        self._observer.observe(lease, began)
        self._valid_until = began + self.timing.renew_deadline_s

    async def _release(self) -> None:
        """Give the lease back so that another need not wait; best effort, within one retry period."""
        lease, held = self._lease, self.leading
        self._valid_until, self._lease = float('-inf'), None
        if lease is None or not held:
            return
        spec = {**lease['spec'], 'holderIdentity': '', 'leaseDurationSeconds': 1}
        try:
            async with asyncio.timeout(self.timing.retry_period_s):
                await self._client.update(LEASES, {**lease, 'spec': spec})
        except (ClientError, TimeoutError) as e:
            log.info('lease could not be released', object=f'{self._namespace}/{self._name}', err=str(e))


async def _as_coroutine(lead: Callable[[], Awaitable[None]]) -> None:
    await lead()


async def _stopped(task: asyncio.Task[None]) -> None:
    """Cancel and wait. A task that raised was heard by `_hold` already."""
    if not task.done():
        await stop(task)
