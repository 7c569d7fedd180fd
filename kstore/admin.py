"""What operators ask of a running member: change the membership, hand over leadership, take a backup.

Requests that change something arrive as tickets at the leader, like writes; each is `[word, *arguments]`. Membership
changes one member at a time: `add` brings it in as a learner, which gets the log and decides nothing; `promote` makes
it a voter once it keeps up; `remove` is refused when those that remain could not decide anything. A member's address
is replicated before the first message to it has to leave, and forgotten after the last.

A backup is pulled chunk by chunk over one connection, so a slow reader costs one chunk of memory.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog

from kcore.tasks import start_detached
from kstore.connection import Connection
from kstore.errors import BadRequest, NotLeader, Overloaded, Refused, StoreError, Timeout
from kstore.fsm import Command, encode
from kstore.mvcc import txn
from kstore.proposals import Ticket
from kstore.raft.confchange import ConfChange, Op
from kstore.raft.errors import NotLeader as NoLeaderHere
from kstore.raft.errors import ProposalDropped, RaftError
from kstore.wire import failure, pack, success

if TYPE_CHECKING:
    from kstore.member import Member

log = structlog.get_logger('kstore.admin')

PROMOTE_LAG_MAX = 1_000
"""Log entries by which a learner may lag when it is promoted."""
BACKUPS_MAX = 4
"""Backups under way at one member; one more is refused."""

Step = Callable[[], None]


class Admin:
    """See the module's text."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._backups: dict[Connection, _Backup] = {}
        self._verbs: dict[str, Callable[..., None]] = {
            'add': self._add,
            'promote': self._promote,
            'remove': self._remove,
            'move-leader': self._move,
        }

    def serve(self, ticket: Ticket) -> None:
        """One request, at the leader."""
        word, *arguments = ticket.body
        verb = self._verbs.get(word)
        try:
            if verb is None:
                raise BadRequest(f'unknown administrative request {word!r}')
            try:
                verb(ticket, *arguments)
            except TypeError as e:
                raise BadRequest(f'malformed {word}: {e}') from e
        except StoreError as e:
            self._member.proposals.finish(ticket, failure(e))
        except ProposalDropped as e:
            self._member.proposals.finish(ticket, failure(Refused(str(e))))

    # -- membership ----------------------------------------------------------------------------------------------

    def _add(self, ticket: Ticket, member: Any, address: Any) -> None:
        everyone = self._everyone()
        txn.check_int(member, 'member')
        host, _, port = address.rpartition(':') if isinstance(address, str) else ('', '', '')
        if not 0 < member < 1 << 31 or not host or not port.isdigit() or int(port) > 65_535:
            raise BadRequest('add wants a member id from 1 to 2^31-1 and HOST:PORT')
        if member in everyone:
            raise Refused(f'{member} is a member already')
        if any(a == address and m in everyone for m, a in self._member.members.items()):
            raise Refused(f'another member has the address {address}')
        change = ConfChange(((Op.ADD_LEARNER, member),))
        self._set_address(ticket, member, address, lambda: self._change(ticket, change, lambda: self._done(ticket)))

    def _promote(self, ticket: Ticket, member: Any) -> None:
        status = self._member.node.status()
        if member not in status.conf.learners:
            raise Refused(f'{member} is no learner')
        peer = status.peers.get(member)
        feeding = peer is not None and peer.active and peer.state == 'replicate'
        if peer is None or not feeding or status.last - peer.match > PROMOTE_LAG_MAX:
            behind = status.last - (peer.match if peer else 0)
            raise Refused(f'learner {member} is not in sync with the leader: {behind} entries behind')
        self._change(ticket, ConfChange(((Op.ADD_VOTER, member),)), lambda: self._done(ticket))

    def _remove(self, ticket: Ticket, member: Any) -> None:
        status = self._member.node.status()
        forget = partial(self._set_address, ticket, member, '', partial(self._done, ticket))
        if member not in self._everyone():
            if member not in self._member.members:
                raise Refused(f'{member} is no member')
            forget()  # it removed itself as leader, and somebody else has to say where it is no longer
            return
        rest = [v for v in status.conf.voters if v != member]
        well = sum(v == self._member.config.id or status.peers[v].active for v in rest)
        if not rest or (member in status.conf.voters and well < len(rest) // 2 + 1):
            raise Refused(f'without {member} only {well} of {len(rest)} voters would answer: unhealthy cluster')
        change = ConfChange(((Op.REMOVE, member),))
        self._change(ticket, change, forget)

    def _everyone(self) -> set[int]:
        conf = self._member.node.status().conf
        return {*conf.voters, *conf.learners, *conf.outgoing, *conf.learners_next}

    def _set_address(self, ticket: Ticket, member: int, address: str, then: Step) -> None:
        def done(result: Any) -> None:
            if isinstance(result, bytes):
                then()
            else:
                self._unconfirmed(ticket, result)

        self._member.node.propose(encode(0, 0, 0, False, Command.MEMBER, member, address), done)

    def _change(self, ticket: Ticket, change: ConfChange, then: Step) -> None:
        def done(result: Any) -> None:
            if isinstance(result, RaftError):
                self._unconfirmed(ticket, result)
            else:
                log.info('membership changed', changes=str(change.changes))
                then()

        self._member.node.propose_conf_change(change, done)

    def _unconfirmed(self, ticket: Ticket, error: Exception) -> None:
        if isinstance(error, NoLeaderHere):
            self._member.proposals.finish(ticket, failure(NotLeader('leadership has moved')))
        elif isinstance(error, ProposalDropped):
            self._member.proposals.finish(ticket, failure(Refused(str(error))))
        else:
            text = f'the change was not confirmed ({error}): see `members` for what holds'
            self._member.proposals.finish(ticket, failure(Timeout(text)))

    def _done(self, ticket: Ticket) -> None:
        conf = self._member.node.status().conf
        self._member.proposals.finish(ticket, success(pack([list(conf.voters), list(conf.learners)])))

    # -- leadership ----------------------------------------------------------------------------------------------

    def _move(self, ticket: Ticket, target: Any) -> None:
        """Answered at once: the caller sees in `status` who leads."""
        if target == self._member.config.id:
            raise Refused(f'{target} leads already')
        self._member.node.transfer_leader(txn.check_int(target, 'member'))
        self._done(ticket)

    # -- backup --------------------------------------------------------------------------------------------------

    def snapshot(self, connection: Connection, number: int, chunk: Any) -> None:
        """Answer with chunk number `chunk` of a backup that begins with chunk 0; empty after the last.

        Raises BadRequest, Overloaded.
        """
        backup = self._backups.get(connection)
        if chunk == 0:
            if backup is None and len(self._backups) >= BACKUPS_MAX:
                raise Overloaded(f'more than {BACKUPS_MAX} backups are under way')
            self.closed(connection)
            backup = self._backups[connection] = _Backup(self._member.fsm.snapshot())
        if backup is None or backup.next != chunk or backup.busy:
            raise BadRequest('no backup is under way on this connection: begin again')
        backup.next += 1
        backup.busy = True
        start_detached('backup', self._pull(connection, number, backup))

    async def _pull(self, connection: Connection, number: int, backup: _Backup) -> None:
        data = await anext(backup.chunks, b'')
        backup.busy = False
        if self._backups.get(connection) is backup:
            connection.answer(number, success(pack(data)))
            if not data:
                del self._backups[connection]
        else:
            await backup.chunks.aclose()

    def closed(self, connection: Connection) -> None:
        """The connection is gone, and its backup with it."""
        backup = self._backups.pop(connection, None)
        if backup is not None and not backup.busy:
            start_detached('backup end', _close(backup.chunks))


class _Backup:
    def __init__(self, chunks: Any) -> None:
        self.chunks = cast('AsyncGenerator[bytes, None]', chunks)
        self.next = 0
        self.busy = False


async def _close(chunks: AsyncGenerator[bytes, None]) -> None:
    await chunks.aclose()
