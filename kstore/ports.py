"""What a `Node` asks of its two neighbours, the state machine and the transport, and the shapes it deals in."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kstore.raft.messages import ConfState, Entry, Message, SnapshotMeta

LOG_KEEP_ENTRIES = 10_000
"""Applied entries kept for followers that lag; one that lags further gets a snapshot. The log is cut at twice this."""
LOG_KEEP_BYTES = 32 << 20
"""The same bound in bytes of data."""

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

    def publish(self) -> None:
        """Tell those who watch of what was applied; called right after the results have been handed out, because a
        thousand watchers take longer than the one who waits for his answer should have to.
        """

    def snapshot(self) -> AsyncIterator[bytes]:
        """The whole state at exactly the `applied_index` of the moment of this call, in chunks of at most 1 MiB.

        The view is fixed when `snapshot()` returns; later `apply` calls do not change it. `aclose` frees it.
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
    log_full: bool = False
    """The log's disk has no room: this member writes nothing until it has."""
    log_crowded: bool = False
    """There was no room to reserve another segment of the log: what is left of this one is all there is."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How one member runs. Relations between the numbers are checked by `RaftConfig`.

    The default timings: 25 ms ticks, a heartbeat every 50 ms, and 300 to 500 ms of silence before a follower asks for
    votes. Five lost heartbeats are noise on a machine whose two cores are shared by everything (stalls of 100 ms are
    seen there), six are a dead leader; pre-vote and check-quorum keep a follower that was stalled itself from
    disturbing anybody. The random part only has to exceed a round trip, of which 25 ms are dozens. When the leader's
    process dies its connections break at once, `peer_lost` says so, and an election starts after one to four ticks.
    """

    id: int
    data_dir: Path
    """The log lives in `data_dir/wal`, arriving snapshots in `data_dir/snap`."""
    voters: tuple[int, ...]
    """Membership of a brand-new cluster, the same on each of its members; empty for a member that joins a cluster (it
    learns the membership from a snapshot). Ignored once the data directory holds one."""
    tick_s: float = 0.025
    election_ticks: int = 12
    heartbeat_ticks: int = 2
    log_keep_entries: int = LOG_KEEP_ENTRIES
    log_keep_bytes: int = LOG_KEEP_BYTES
