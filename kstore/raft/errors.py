"""Why the core refuses a request. None of these harms the log; each says what the caller may do next."""

from __future__ import annotations


class RaftError(Exception):
    """Base of everything this package raises on purpose."""


class NotLeader(RaftError):
    """Only the leader can do this; `leader` is its id, or 0 when no leader is known."""

    def __init__(self, leader: int) -> None:
        super().__init__(f'not the leader; leader is {leader}' if leader else 'no leader is known')
        self.leader = leader


class ProposalDropped(RaftError):
    """The proposal was not accepted and certainly never will be: retry later, perhaps elsewhere."""


class LeadershipLost(RaftError):
    """This member stopped leading while the proposal was under way: it may or may not take effect."""


class ReadDropped(RaftError):
    """The read could not be ordered after earlier writes (no leader, or leadership moved): ask again."""


class ConfChangeRefused(RaftError):
    """The membership change is invalid or another one is still under way."""


class Compacted(RaftError):
    """The log no longer holds an entry that was asked for; a snapshot covers it."""


class LogCorrupt(RaftError):
    """Stored state contradicts itself; starting with it could lose acknowledged writes."""


class LogFull(RaftError):
    """The log's disk is full and nobody else can lead: nothing was written. It ends by itself when there is room."""
