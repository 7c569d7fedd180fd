"""Linearizable reads that wait: for a round of confirmation, then for the state machine to catch up.

One round is under way at a time and serves everyone who asked before it began; whoever asks meanwhile shares the next.
A round that is not answered (message lost, leader gone) is begun again under a new token: an answer to the old token
might be older than the question.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from kstore.raft.core import RaftConfig, RaftCore
from kstore.raft.errors import NotLeader, ReadDropped

READS_MAX = 65_536
"""Reads that may wait; more are refused with ReadDropped."""
PATIENCE_ELECTIONS = 4
"""Election timeouts after which a read that found no leader is given up."""

Done = Callable[[Any], None]


class Reads:
    """All waiting reads of one member."""

    def __init__(self, config: RaftConfig, rng: random.Random) -> None:
        self._retry_ticks = config.election_ticks
        self._patience_ticks = PATIENCE_ELECTIONS * config.election_ticks
        self._incarnation = rng.getrandbits(64).to_bytes(8, 'big')
        self._rounds = 0
        self._now = 0
        self._waiting: list[tuple[int, Done]] = []
        """Those without a round, and the tick at which each asked."""
        self._round: list[tuple[int, Done]] = []
        self._token = b''
        self._asked_at = 0
        self._confirmed: deque[tuple[int, list[tuple[int, Done]]]] = deque()
        """Rounds waiting for the state machine, by index."""
        self._count = 0

    @property
    def waiting(self) -> bool:
        """Whether there are readers without a round."""
        return bool(self._waiting)

    def add(self, done: Done) -> bool:
        """Returns whether a turn is needed; False when `done` was refused at once."""
        if self._count >= READS_MAX:
            done(ReadDropped('too many reads are waiting'))
            return False
        self._count += 1
        self._waiting.append((self._now, done))
        return True

    def ask(self, core: RaftCore) -> bool:
        """Begin a round if one is due. Returns whether the core has something to do."""
        if self._round or not self._waiting:
            return False
        self._rounds += 1
        token = self._incarnation + self._rounds.to_bytes(8, 'big')
        try:
            core.read_index(token)
        except NotLeader:
            return False
        self._token, self._asked_at = token, self._now
        self._round, self._waiting = self._waiting, []
        return True

    def confirmed(self, token: bytes, index: int) -> None:
        """The round's answer: its readers may go on once `index` is applied."""
        if self._round and token == self._token:
            self._confirmed.append((index, self._round))
            self._round = []

    def applied(self, index: int) -> None:
        """The state machine holds everything up to `index`."""
        while self._confirmed and self._confirmed[0][0] <= index:
            at, readers = self._confirmed.popleft()
            self._count -= len(readers)
            for _, done in readers:
                done(at)

    def tick(self) -> None:
        """Time passes: begin again what was not answered, give up what waits too long."""
        self._now += 1
        if self._round and self._now - self._asked_at >= self._retry_ticks:
            self.leader_changed()
        if self._waiting and self._now - self._waiting[0][0] > self._patience_ticks:
            late = [done for at, done in self._waiting if self._now - at > self._patience_ticks]
            self._waiting = [w for w in self._waiting if self._now - w[0] <= self._patience_ticks]
            self._count -= len(late)
            for done in late:
                done(ReadDropped('no leader confirmed the read in time'))

    def leader_changed(self) -> None:
        """Nobody may ever answer the round under way: its readers wait for a new one."""
        self._waiting = self._round + self._waiting
        self._round = []

    def fail_all(self, error: Exception) -> None:
        """This member stops."""
        readers = self._waiting + self._round + [r for _, rs in self._confirmed for r in rs]
        self._waiting, self._round, self._count = [], [], 0
        self._confirmed.clear()
        for _, done in readers:
            done(error)
