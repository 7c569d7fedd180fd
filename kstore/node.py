"""One member: `drive()` joins the Raft core, the log on disk, the network and the state machine.

This is the only place where Raft meets the outside. See `Fsm` and `Transport` for what the two neighbours promise.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kcore.env import Env
from kstore.raft.messages import ConfState, Entry, Message, SnapshotMeta

Done = Callable[[Any], None]
"""Receives the result of `Fsm.apply` for the entry (or the read index), or an exception instance. Called once, on the
event loop; must not raise and must not block."""


class Fsm(Protocol):
    """The replicated state machine. All calls come from the event loop's thread, never nested."""

    @property
    def applied_index(self) -> int:
        """Index of the last entry in the state. After a restart equal to `durable_index`."""

    @property
    def durable_index(self) -> int:
        """Entries up to here survive a crash within the state itself and need no log any more; <= applied_index."""

    def apply(self, entries: Sequence[Entry]) -> Sequence[Any]:
        """Apply in order; deterministic, synchronous. One result per entry (for no-ops and membership entries: any).

        Indices are consecutive from `applied_index + 1`. A command that the state refuses is a *result* (an exception
        instance, say), not a raise: raising ends the process.
        """

    def snapshot(self) -> AsyncIterator[bytes]:
        """The whole state at exactly the `applied_index` of the moment of this call, in chunks of at most 1 MiB.

        The view is fixed when `snapshot()` returns; later `apply` calls do not change it. Closing the iterator frees it.
        """

    async def restore(self, meta: SnapshotMeta, chunks: AsyncIterable[bytes]) -> None:
        """Replace the whole state; on return `applied_index == durable_index == meta.index`, durably.

        A crash in the middle leaves the old state or an unusable one whose `durable_index` is below `meta.index`; the
        node calls `restore` again from its own copy of the chunks. Raises ValueError when the chunks are no snapshot.
        """


class Transport(Protocol):
    """Carries messages to peers. Loss, delay, duplication and reordering are all allowed."""

    def send(self, messages: Sequence[Message]) -> None:
        """Queue each message for the peer `message.to`; never blocks, never raises; drops when a peer's queue is full.

        The other side feeds what arrives into `Node.receive(Message.from_wire(raw))`.
        """


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """What the leader knows about one other member."""

    match: int
    next: int
    state: str
    active: bool


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A consistent view of one member, for status, metrics and health."""

    id: int
    role: str
    """`follower`, `pre-candidate`, `candidate` or `leader`."""
    term: int
    leader: int
    commit: int
    applied: int
    last: int
    first: int
    conf: ConfState
    peers: dict[int, PeerStatus] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How one member runs. Relations between the numbers are checked by `RaftConfig`."""

    id: int
    data_dir: Path
    """The log lives in `data_dir/wal`, arriving snapshots in `data_dir/snap`."""
    voters: tuple[int, ...]
    """Membership of a brand-new cluster; ignored once the data directory holds one."""
    tick_s: float = 0.025
    election_ticks: int = 12
    heartbeat_ticks: int = 2


class Node:
    """One member of the cluster. Everything is called from the event loop."""

    def __init__(self, config: NodeConfig, env: Env, fsm: Fsm, transport: Transport) -> None:
        """Opens nothing yet: `run` does."""
        raise NotImplementedError

    async def run(self) -> None:
        """Recover from disk, then serve until cancelled. Raises `kcore.tasks.Died` when the disk fails."""
        raise NotImplementedError

    def receive(self, message: Message) -> None:
        """Feed one message from a peer. Cheap; handled in the next turn of `drive`."""
        raise NotImplementedError

    def propose(self, data: bytes, done: Done) -> None:
        """Replicate a command; `done` gets the state machine's result, or NotLeader, ProposalDropped, LeadershipLost.

        All proposals made in one turn of the event loop share one log write and one sync.
        """
        raise NotImplementedError

    def read_index(self, done: Done) -> None:
        """`done(index)` once the local state machine has applied everything acknowledged before this call.

        Works on every member. `done` may get NotLeader or ReadDropped instead: ask again. One round of heartbeats
        serves all reads that wait.
        """
        raise NotImplementedError

    def peer_lost(self, peer: int) -> None:
        """A hint that the connection to `peer` broke: if it led, an election may start early."""
        raise NotImplementedError

    def transfer_leader(self, target: int) -> None:
        """Ask that `target` lead. Raises NotLeader when no leader is known; ProposalDropped for an unfit target."""
        raise NotImplementedError

    @property
    def leader_id(self) -> int:
        """Whom this member believes to lead; 0 when no one."""
        raise NotImplementedError

    @property
    def is_leader(self) -> bool:
        """Whether this member believes to lead; only a confirmed read or a commit proves it."""
        raise NotImplementedError

    def status(self) -> NodeStatus:
        """Role, term, indices and, on the leader, every peer's progress."""
        raise NotImplementedError

    def on_leader_change(self, listener: Callable[[int, int], None]) -> None:
        """Call `listener(leader, term)` after each change of the known leader."""
        raise NotImplementedError
