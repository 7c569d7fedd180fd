"""Links to the other members: each member dials every other one, and sends on the connection it dialled.

Raft messages may be lost, so a link that is down or full drops them. Forwarded requests are answered or counted as lost
(`on_down`), and whoever forwarded them decides to try again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, cast

import structlog

from kcore.backoff import Backoff
from kcore.env import Env
from kcore.tasks import start_essential
from kcore.tls import BadCertificate, ClientTls, lost, trouble
from kstore.errors import ProtocolError
from kstore.raft.messages import Message, MessageType
from kstore.wire import HELLO_BYTES_MAX, FrameReader, Hello, Peer, Role, frame, pack

log = structlog.get_logger('kstore.peers')

PEER_BUFFER_BYTES_MAX = 32 * 1024 * 1024
"""Unsent bytes to one peer at which Raft messages are dropped; Raft sends them again."""
DIAL_TIMEOUT_S = 2.0
REDIAL_S_MAX = 0.5
"""Longest pause between two attempts to reach a peer."""
NEWS_S = 0.002
"""How long a follower's news of a commit may wait for an append to travel with: with no append coming it costs the
follower a turn, and the leader an answer, just when the client sends its next write."""


_RAFT, _FORWARD, _ANSWER = int(Peer.RAFT), int(Peer.FORWARD), int(Peer.ANSWER)


class PeerLink(asyncio.Protocol):
    """The dialling end of one connection to one peer. Nothing but the hello comes back on it."""

    def __init__(self, ours: Hello, member: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._ours = ours
        self._member = member
        self._reader = FrameReader(HELLO_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._messages: list[Message] = []
        self._forwards: list[Any] = []
        self._answers: list[Any] = []
        self._scheduled = False
        self.sent_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        """Flushes news that found no company."""
        self.ready: asyncio.Future[None] = self._loop.create_future()
        """Done once the peer has said a fitting hello."""
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.error: Exception | None = None
        """Why the connection broke, if the kernel or TLS said so."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)  # uvloop then writes at once, not after another poll
        self._transport.write(self._ours.encode())

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._reader.feed(data):
                theirs = Hello.decode(payload)
                if theirs.cluster != self._ours.cluster:
                    raise ProtocolError('the peer belongs to another cluster')
                if theirs.member != self._member:
                    raise ProtocolError(f'the peer calls itself member {theirs.member}, not {self._member}')
                if not self.ready.done():
                    self.ready.set_result(None)
        except ProtocolError as e:
            log.warning('peer refused', peer=self._member, err=str(e))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc if self.ready.done() else lost(self._transport, exc)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for future in (self.ready, self.lost):
            if not future.done():
                future.set_result(None)

    @property
    def up(self) -> bool:
        return self._transport is not None and self.ready.done()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def post(self, message: Message) -> None:
        if self._transport is None or self._transport.get_write_buffer_size() > PEER_BUFFER_BYTES_MAX:
            return
        waiting = self._messages
        if message.entries and waiting and _says_no_more(waiting[-1], message):
            waiting.pop()
        waiting.append(message)
        if message.entries or message.type == MessageType.APPEND_RESP:
            return  # `Peers.send` flushes at once
        if message.type != MessageType.APPEND:
            self._schedule()
        elif not self._scheduled and self._timer is None:
            self._timer = self._loop.call_later(NEWS_S, self._flush)

    def forward(self, item: Any) -> None:
        self._forwards.append(item)
        self._schedule()

    def answer(self, item: Any) -> None:
        self._answers.append(item)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Send what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        data = b''
        if self._messages:
            data = frame(pack((_RAFT, self._messages)))
            self._messages = []
        if self._forwards:
            data += frame(pack((_FORWARD, self._forwards)))
            self._forwards = []
        if self._answers:
            data += frame(pack((_ANSWER, self._answers)))
            self._answers = []
        if data and self._transport is not None:
            self.sent_bytes += len(data)
            self._transport.write(data)


class Peers:
    """All links of a member: the `Transport` of `kstore.node`, and the way of forwarded requests."""

    def __init__(self, hello: Hello, addresses: Mapping[int, tuple[str, int]], env: Env) -> None:
        self._hello = Hello(Role.PEER, hello.cluster, hello.member)
        self.addresses = dict(addresses)
        """Of the other members; see `update`."""
        self._env = env
        self._links: dict[int, PeerLink] = {}
        self._sent_bytes: dict[int, int] = {}
        """To each peer, on links that are gone."""
        self._changed = asyncio.Event()
        self.on_down: Callable[[int], None] = lambda peer: None
        """Called when the link to a peer breaks."""

    def send(self, messages: Sequence[Message]) -> None:
        """See `kstore.node.Transport`."""
        links = self._links
        urgent: dict[PeerLink, None] = {}
        for message in messages:
            link = links.get(message.to)
            if link is not None:
                link.post(message)
                if message.entries or message.type == MessageType.APPEND_RESP:
                    urgent[link] = None
        for link in urgent:  # somebody's write waits for these
            link.flush()

    def up(self, peer: int) -> bool:
        link = self._links.get(peer)
        return link is not None and link.up

    def sent_bytes(self, peer: int) -> int:
        """Of all that was sent to `peer` since the start, but for what greets it."""
        link = self._links.get(peer)
        return self._sent_bytes.get(peer, 0) + (link.sent_bytes if link is not None else 0)

    def forward(self, peer: int, item: Any) -> bool:
        """Send `[id, op, body, guard]`; False when there is no link now."""
        if not self.up(peer):
            return False
        self._links[peer].forward(item)
        return True

    def answer(self, peer: int, item: Any) -> None:
        """Send `[id, result]`; lost with the link."""
        if self.up(peer):
            self._links[peer].answer(item)

    def update(self, addresses: Mapping[int, tuple[str, int]]) -> None:
        """The other members are now these: new ones are dialled, links to those that are gone are closed."""
        if addresses != self.addresses:
            self.addresses = dict(addresses)
            self._changed.set()

    async def run(self, tls: ClientTls) -> NoReturn:
        """Keep links to all members up, whoever they are, for ever."""
        tasks: dict[int, tuple[tuple[str, int], asyncio.Task[NoReturn]]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for peer, (address, task) in tuple(tasks.items()):
                    if self.addresses.get(peer) != address:
                        task.cancel()
                        del tasks[peer]
                for peer, address in self.addresses.items():
                    if peer not in tasks:
                        tasks[peer] = address, start_essential(group, f'peer {peer}', self._keep(peer, address, tls))
                await self._changed.wait()
        raise AssertionError('the group never ends by itself')

    async def _keep(self, peer: int, address: tuple[str, int], tls: ClientTls) -> NoReturn:
        """Keep the link to one peer up, for ever."""
        backoff = Backoff(0.02, REDIAL_S_MAX, self._env.rng)
        host, port = address
        told = ''
        while True:
            link: PeerLink | None = None
            try:
                async with asyncio.timeout(DIAL_TIMEOUT_S):
                    _, protocol = await self._env.net.connect(
                        lambda: PeerLink(self._hello, peer), host, port, tls=tls and tls()
                    )
                    link = cast(PeerLink, protocol)
                    await link.ready
                self._links[peer] = link
                if link.up:
                    told = ''
                    backoff.reset()
                elif link.error is not None:
                    told = _tell(peer, link.error, told)
                await link.lost
            except (OSError, TimeoutError, BadCertificate) as e:
                told = _tell(peer, e, told)
            finally:
                if link is not None:
                    link.close()
                if link is not None and self._links.pop(peer, None) is not None:
                    self._sent_bytes[peer] = self._sent_bytes.get(peer, 0) + link.sent_bytes
                    self.on_down(peer)
            await asyncio.sleep(backoff.next())


def _says_no_more(news: Message, append: Message) -> bool:
    """Whether `append` tells all that the empty append `news` does: both follow on one entry, the commit only grows."""
    return (
        news.type == append.type == MessageType.APPEND
        and not news.entries
        and (news.term, news.index) == (append.term, append.index)
    )


def _tell(peer: int, e: Exception, told: str) -> str:
    """Say what a peer's certificate, or ours, is wrong about: once, not at every attempt. Returns what was said."""
    text = trouble(e)
    if text and text != told:
        log.warning('peer refused', peer=peer, err=text)
    else:
        log.debug('peer unreachable', peer=peer, err=str(e))
    return text or told
