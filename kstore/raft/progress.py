"""What the leader knows about one follower's log, and how fast it may feed it.

Three states. *Probe*: the leader does not know where the logs part; one append at a time, the next only after an
answer or a heartbeat's answer. *Replicate*: the logs are known to agree up to `match`; appends are pipelined and
`next` runs ahead optimistically, up to the inflight limits. *Snapshot*: the follower needs entries that are gone from
the log; nothing is sent until the snapshot is in or has failed.

    probe ──append accepted──► replicate ──append rejected──► probe
      └─ entries compacted ─► snapshot ──accepted or failed──► probe
"""

from __future__ import annotations

from collections import deque
from enum import Enum


class State(Enum):
    """How the leader feeds a follower."""

    PROBE = 'probe'
    REPLICATE = 'replicate'
    SNAPSHOT = 'snapshot'


class Inflights:
    """Appends on their way to one follower, oldest first, bounded by count and by bytes."""

    __slots__ = ('_bytes', '_sent', 'bytes_max', 'count_max')

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self.count_max = count_max
        self.bytes_max = bytes_max
        self._sent: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def full(self) -> bool:
        """One append may exceed the byte limit; a second one then waits."""
        return len(self._sent) >= self.count_max or self._bytes >= self.bytes_max

    def add(self, last: int, size: int) -> None:
        """An append ending at index `last` with `size` bytes of payload was sent."""
        self._sent.append((last, size))
        self._bytes += size

    def free_up_to(self, index: int) -> None:
        """Everything up to `index` arrived."""
        while self._sent and self._sent[0][0] <= index:
            self._bytes -= self._sent.popleft()[1]

    def clear(self) -> None:
        self._sent.clear()
        self._bytes = 0


class Progress:
    """One follower as the leader sees it. Invariant: match < next."""

    __slots__ = (
        'acked_round',
        'active',
        'inflights',
        'match',
        'next',
        'nudge',
        'sent_commit',
        'snapshot',
        'state',
        'waiting',
    )

    def __init__(self, match: int, next_: int, inflights: Inflights) -> None:
        self.match = match
        """Highest index known to be on the follower's disk."""
        self.next = next_
        """Index of the next entry to send."""
        self.state = State.PROBE
        self.waiting = False
        """Probe only: an append is out and unanswered."""
        self.nudge = False
        """The follower answered a heartbeat but lags: send an append even if it is empty, to find a lost one."""
        self.active = False
        """Heard from since the last quorum check."""
        self.snapshot = 0
        """Snapshot only: the index it will bring the follower to."""
        self.sent_commit = 0
        """Highest commit index told to the follower."""
        self.acked_round = 0
        """Newest read round that the follower's heartbeat answers confirm."""
        self.inflights = inflights

    @property
    def paused(self) -> bool:
        """Whether appends with entries must wait."""
        if self.state is State.REPLICATE:
            return self.inflights.full
        return self.state is State.SNAPSHOT or self.waiting

    def become_probe(self) -> None:
        # After a snapshot the follower holds at least what the snapshot held, if it was accepted at all.
        self.next = max(self.match, self.snapshot if self.state is State.SNAPSHOT else 0) + 1
        self._reset(State.PROBE)

    def become_replicate(self) -> None:
        self.next = self.match + 1
        self._reset(State.REPLICATE)

    def become_snapshot(self, index: int) -> None:
        self._reset(State.SNAPSHOT)
        self.snapshot = index

    def _reset(self, state: State) -> None:
        self.state = state
        self.waiting = False
        self.nudge = False
        self.snapshot = 0
        self.sent_commit = min(self.sent_commit, self.match)
        self.inflights.clear()

    def sent(self, last: int, size: int) -> None:
        """An append left whose last entry is `last` (`next - 1` when it was empty), with `size` bytes of payload."""
        self.nudge = False
        if self.state is State.REPLICATE:
            if last >= self.next:
                self.next = last + 1
                self.inflights.add(last, size)
        else:
            self.waiting = True

    def acknowledged(self, index: int) -> bool:
        """The follower's log agrees up to `index`. Returns whether that is news."""
        news = index > self.match
        if news:
            self.match = index
            self.waiting = False
        self.next = max(self.next, index + 1)
        return news

    def rejected(self, index: int, hint: int) -> bool:
        """The append after `index` was refused; look next after `hint`. Returns whether the answer is not stale."""
        if self.state is State.REPLICATE:
            if index <= self.match:
                return False
            self.become_probe()
            return True
        if self.state is State.SNAPSHOT or index != self.next - 1:
            return False  # an answer to an older probe
        self.next = max(min(index, hint + 1), self.match + 1)
        self.waiting = False
        return True
