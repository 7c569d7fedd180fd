"""Calls that survive members, leaders and connections: the engine room of `kstore.client`.

It keeps one connection, to the leader where it can, and sends everything on it. When the connection breaks, falls
silent or its member has no leader, it goes to another endpoint and sends again whatever is unanswered: reads are
harmless, and each write carries a request id, so a write is applied once however often it is sent.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Self, cast

import structlog

from kcore.backoff import Backoff
from kcore.config import split_address
from kcore.env import Env
from kcore.tasks import start_detached, stop
from kcore.tls import BadCertificate, ClientTls, trouble
from kstore.clientlink import ClientLink
from kstore.errors import (
    Corrupt,
    NoLeader,
    SessionExpired,
    Stopped,
    StoreError,
    Timeout,
    TooLarge,
    Unreachable,
    from_wire,
)
from kstore.fsm import COMMAND_BYTES_MAX, Command, encode
from kstore.watchstream import WatchStream, WatchTable
from kstore.wire import Op, frame, pack

log = structlog.get_logger('kstore.client')

INFLIGHT_MAX = 2_048
"""Unanswered requests of one client; further callers wait for one of them."""
SILENCE_S, SILENCE_MAX_S = 0.75, 12.0
"""A connection without a byte for this long, though something was asked, is given up; twice as long each time until a
call is answered: a member may be busy with the very thing it is asked for again and again.
"""
PING_S = 0.25
DIAL_TIMEOUT_S = 0.5
LEADER_CHECK_ROUNDS = 12
"""Pings between two looks at who leads, so that a client comes back to the leader after a failure."""
_NO_WATCH = 0
RETRY_S = 0.02
"""Pause before a request that a member could not serve is sent again."""


@dataclass(eq=False, slots=True)
class _Call:
    """One unanswered request."""

    number: int
    op: int
    arguments: tuple[Any, ...]
    future: asyncio.Future[Any]
    deadline: float
    """Loop time at which it is given up."""
    sequence: int = 0
    """Of a write; 0 for a read; minus the session's number for the write that opens it."""
    session: int = 0
    guarded: bool = False
    """A compare-and-swap of one key: it may wait for its turn at the leader."""
    tries: int = 0
    error: StoreError | None = None
    """Why the last try failed."""


class Calls:
    """See the module's text. `StoreClient` adds the verbs."""

    def __init__(
        self,
        endpoints: Sequence[tuple[str, int]],
        env: Env,
        *,
        tls: ClientTls = None,
        deadline_s: float = 5.0,
        follow_leader: bool = True,
    ) -> None:
        """`deadline_s`: longest time of one call. `follow_leader` False stays with the first endpoint that answers."""
        if not endpoints:
            raise ValueError('endpoints must not be empty')
        self._endpoints = list(endpoints)
        self._env = env
        self._tls = tls
        self.deadline_s = deadline_s
        self._follow = follow_leader
        self._link: ClientLink | None = None
        self._calls: dict[int, _Call] = {}
        self._number = 0
        self._session = 0
        self._sequence = 0
        self._unacked: dict[int, None] = {}
        self._watches = WatchTable()
        self._watch_number = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._slots = asyncio.Semaphore(INFLIGHT_MAX)
        self._closed = False
        self._hint: tuple[str, int] | None = None
        self._shunned: tuple[str, int] | None = None
        self._opening: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        """Fires when the oldest call may be overdue."""
        self._silence_s = SILENCE_S
        self._leaderless = False
        """Our member knew no leader when it was last asked."""
        self._trouble = ''
        """What certificates had to do with the last failure to connect."""
        self.endpoint: tuple[str, int] | None = None
        """Whom we are connected to."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to connect; returns at once: calls wait for a connection until their deadline."""
        self._tasks = [start_detached('store client', self._keep()), start_detached('store client ping', self._ping())]

    async def close(self) -> None:
        """End everything; unanswered calls and open watches get Stopped."""
        self._closed = True
        await stop(*self._tasks)
        if self._timer is not None:
            self._timer.cancel()
        for call in tuple(self._calls.values()):
            self._fail(call, Stopped('the client was closed'))
        for stream in tuple(self._watches.streams.values()):
            stream.close()

    # -- watches ---------------------------------------------------------------------------------------------------

    def request_progress(self, stream: WatchStream) -> None:
        """Ask for a progress notice on `stream` now; it comes if the stream is in the present."""
        if self._link is not None and self._link.up:
            self._number += 1
            self._link.send(frame(pack([self._number, int(Op.PROGRESS), stream.id])))

    def register(self, stream: WatchStream) -> None:
        """For WatchStream."""
        if self._closed:
            raise Stopped('the client was closed')
        if not stream.id:
            self._watch_number += 1
            stream.id = self._watch_number
            self._watches.streams[stream.id] = stream
            self.resume(stream)

    def unregister(self, stream: WatchStream) -> None:
        """For WatchStream."""
        if self._watches.streams.pop(stream.id, None) is not None:
            self.suspend(stream)

    def suspend(self, stream: WatchStream) -> None:
        """For WatchStream: end it at the server, keep it here."""
        self._watches.drop(stream)
        if self._link is not None and self._link.up:
            self._number += 1
            self._link.send(frame(pack([self._number, int(Op.UNWATCH), stream.id])))

    def resume(self, stream: WatchStream) -> None:
        """For WatchStream: ask the server for everything from `stream.next` on."""
        if self._link is None or not self._link.up or stream.suspended:
            return
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = self._begin(future, Op.WATCH, (stream.id, stream.start, stream.end, stream.next, stream.flags))
        link = self._link

        def began(done: asyncio.Future[Any]) -> None:
            error = None if done.cancelled() else done.exception()
            if done.cancelled() or self._link is not link or stream.id not in self._watches.streams:
                return
            if error is None:
                stream.began(done.result())
            elif isinstance(error, StoreError) and not error.retriable:
                self._watches.streams.pop(stream.id, None)
                stream.fail(error)

        future.add_done_callback(began)
        self._send(call)

    # -- calls ---------------------------------------------------------------------------------------------------

    def unavailable(self) -> StoreError:
        """What to tell a caller whose deadline passed without any answer."""
        if self._link is None or not self._link.up:
            names = ', '.join(f'{host}:{port}' for host, port in self._endpoints)
            why = f': {self._trouble}' if self._trouble else ''
            return Unreachable(f'no member of the store answers at {names}{why}')
        return Timeout(f'no answer within {self.deadline_s:g} s')

    async def _call(self, op: Op, *arguments: Any) -> Any:
        return await self._run(op, arguments, 0)

    async def _write(self, *command: Any) -> Any:
        async with self._slots:
            if self._session == 0:
                await self._open_session()
            self._sequence += 1
            sequence = self._sequence
            self._unacked[sequence] = None
            try:
                return await self._run(Op.WRITE, command, sequence)
            except (Timeout, SessionExpired):
                self._session = 0  # what it was sent may still be applied: no later number may be taken for it
                raise
            finally:
                self._unacked.pop(sequence, None)

    async def _open_session(self) -> None:
        """Make the session known before its first real write, so that an unknown session means a forgotten one."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_future()
            session = self._env.rng.getrandbits(63) + 1
            try:
                await self._run(Op.WRITE, (Command.NOTHING,), -session)
                self._session = session
            finally:
                opening, self._opening = self._opening, None
                opening.set_result(None)
        else:
            await self._opening
            if self._session == 0:
                await self._open_session()

    async def _run(self, op: Op, arguments: tuple[Any, ...], sequence: int) -> Any:
        if self._closed:
            raise Stopped('the client was closed')
        loop = asyncio.get_running_loop()
        call = self._begin(loop.create_future(), op, arguments, sequence, loop.time() + self.deadline_s)
        if self._timer is None:
            self._timer = loop.call_at(call.deadline, self._expire)
        try:
            self._send(call)
            return await call.future
        finally:
            self._calls.pop(call.number, None)

    def _begin(
        self,
        future: asyncio.Future[Any],
        op: Op,
        arguments: tuple[Any, ...],
        sequence: int = 0,
        deadline: float = math.inf,
    ) -> _Call:
        self._number += 1
        guarded = op == Op.WRITE and _is_swap(arguments)
        call = self._calls[self._number] = _Call(
            self._number, int(op), arguments, future, deadline, sequence, self._session, guarded
        )
        return call

    def _send(self, call: _Call) -> None:
        link = self._link
        if link is None or not link.up:
            return  # sent when there is one
        call.tries += 1
        if call.op == Op.WRITE:
            if call.sequence < 0:  # opens a session: harmless to repeat, so never a retry
                command = encode(-call.sequence, 0, 0, False, *call.arguments)
            else:
                acked = next(iter(self._unacked), call.sequence)
                command = encode(call.session, call.sequence, acked, call.tries > 1, *call.arguments)
            if len(command) > COMMAND_BYTES_MAX:
                self._fail(call, TooLarge(f'request of {len(command)} bytes is over the limit of {COMMAND_BYTES_MAX}'))
                return
            guard = call.arguments[1][0][0] if call.guarded and call.tries == 1 else None
            data = frame(pack((call.number, call.op, command, guard)))
        else:
            data = frame(pack((call.number, call.op, *call.arguments)))
        link.send(data, alone=len(self._calls) == 1)

    def _expire(self) -> None:
        """One timer serves all calls: each has the same time, so that the oldest is the first to run out of it."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for call in tuple(self._calls.values()):
            if call.deadline <= loop.time():
                self._fail(call, call.error or self.unavailable())
        if self._calls and (next_ := min(call.deadline for call in self._calls.values())) < math.inf:
            self._timer = loop.call_at(next_, self._expire)

    def _fail(self, call: _Call, error: StoreError) -> None:
        self._calls.pop(call.number, None)
        if not call.future.done():
            call.future.set_exception(error)

    def _on_message(self, message: list[Any]) -> None:
        number = message[0]
        if number == 0:
            self._watches.message(message)
            return
        call = self._calls.get(number)
        if call is None or call.future.done():
            return
        code = message[1]
        if code == 0:
            if call.op != Op.STATUS:
                self._silence_s = SILENCE_S
            del self._calls[number]
            call.future.set_result(message[2])
            return
        error = from_wire(code, message[2])
        elsewhere = isinstance(error, Corrupt) and len(self._endpoints) > 1
        if elsewhere or error.retriable or (isinstance(error, Timeout) and call.op == Op.WRITE):
            call.error = error
            asyncio.get_running_loop().call_later(RETRY_S, self._again, call)
            if isinstance(error, NoLeader | Stopped | Corrupt) and self._link is not None:
                if elsewhere:
                    self._shunned = self.endpoint
                self._link.close()  # perhaps another member has a leader, or sound contents
        else:
            self._fail(call, error)

    def _again(self, call: _Call) -> None:
        if call.number in self._calls and not call.future.done():
            self._send(call)

    # -- the connection ------------------------------------------------------------------------------------------

    async def _keep(self) -> NoReturn:
        """Keep a connection up, for ever."""
        backoff = Backoff(0.02, 0.5, self._env.rng)
        turn = self._env.rng.randrange(len(self._endpoints)) if self._follow else 0
        skipped = False
        while True:
            target, self._hint = self._hint, None
            if target is None:
                target = self._endpoints[turn % len(self._endpoints)]
                turn += 1
                if target == self._shunned and len(self._endpoints) > 1 and not skipped:
                    skipped = True  # everyone else first
                    continue
            link = None
            try:
                link = await self._dial(target)
                self._hint = await self._leader_elsewhere(link)
            except (OSError, TimeoutError, StoreError, BadCertificate) as e:
                log.debug('endpoint unreachable', endpoint=f'{target[0]}:{target[1]}', err=str(e))
                self._trouble = trouble(e) or trouble(e.__cause__)
                self._shunned = target  # its peers may still take it for the leader
                if link is not None:
                    link.close()
                if turn % len(self._endpoints) == 0:
                    await asyncio.sleep(backoff.next())
                continue
            if self._hint is not None:
                link.close()
                continue
            self._link, self.endpoint, skipped = link, target, False
            backoff.reset()
            self._trouble = ''
            try:
                self._attach()
                await link.lost
            finally:
                self._link = self.endpoint = None
                link.close()
                self._watches.reset()

    async def _dial(self, target: tuple[str, int]) -> ClientLink:
        """A ready connection."""
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            _, protocol = await self._env.net.connect(
                lambda: ClientLink(self._on_message), target[0], target[1], tls=self._tls and self._tls()
            )
            link = cast(ClientLink, protocol)
            try:
                await link.ready
            except BaseException:
                link.close()
                raise
        return link

    def _attach(self) -> None:
        """On a fresh connection: everything unanswered again, every watch from where it is."""
        for call in tuple(self._calls.values()):
            if call.op == Op.WATCH:
                self._calls.pop(call.number, None)
                call.future.cancel()
            elif not call.future.done():
                self._send(call)
        for stream in tuple(self._watches.streams.values()):
            self.resume(stream)

    async def _leader_elsewhere(self, link: ClientLink) -> tuple[str, int] | None:
        """The leader's address, if that is another of our endpoints and not one that just failed us."""
        if not self._follow or len(self._endpoints) == 1:
            return None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = self._begin(future, Op.STATUS, ())
        try:
            link.send(frame(pack((call.number, int(Op.STATUS)))))
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                status = await future
        finally:
            self._calls.pop(call.number, None)
        self._leaderless = not status['leader']
        address = status['members'].get(status['leader'])
        if not address or status['leader'] == status['member']:
            return None
        found = split_address(address)
        return found if found in self._endpoints and found != self._shunned else None

    async def _ping(self) -> NoReturn:
        """Give up a connection that has fallen silent: its member may be stopped without having closed it."""
        loop = asyncio.get_running_loop()
        rounds = 0
        while True:
            await asyncio.sleep(PING_S)
            link = self._link
            if link is None or not link.up:
                continue
            if loop.time() - link.heard > self._silence_s:
                self._silence_s = min(2 * self._silence_s, SILENCE_MAX_S)
                log.info('connection given up', endpoint=str(self.endpoint), err='no answer')
                self._shunned = self.endpoint
                link.close()
            elif loop.time() - link.heard > PING_S:
                self._number += 1
                link.send(frame(pack((self._number, int(Op.PROGRESS), _NO_WATCH))))  # the cheapest question there is
            rounds += 1
            if rounds % LEADER_CHECK_ROUNDS == 0:
                self._shunned = None
                if await self._moved(link):
                    link.close()

    async def _moved(self, link: ClientLink) -> bool:
        """Whether to look elsewhere: another member leads, or ours has known no leader twice in a row.

        The latter is cut off from the others, and a watch there waits in silence.
        """
        alone, self._leaderless = self._leaderless, False
        try:
            self._hint = await self._leader_elsewhere(link)
        except (OSError, TimeoutError, StoreError):
            self._hint = None  # silence is for the next round to judge
        if alone and self._leaderless:
            log.info('connection given up', endpoint=str(self.endpoint), err='it knows no leader')
            self._shunned = self.endpoint
            return True
        return self._hint is not None


def _is_swap(command: tuple[Any, ...]) -> bool:
    """Whether a command is a transaction with one compare, of one key."""
    return command[0] == Command.TXN and len(command[1]) == 1 and command[1][0][1] is None
