"""Room on the disk: an early warning, then puts are refused until there is room again; nobody has to disarm anything.

Two things can be full. The *quota* bounds the state in use (live pages of the tables: what compaction frees is free at
once, so there is nothing to defragment first). The *disk* may refuse a flush of the tables; what is applied then stays
in memory and in the log, and the flush is tried again. In both cases puts and lease grants are refused with NoSpace;
reads, deletes, compaction and everything about existing leases go on, since they are the way out. Each member looks at
its own tables; the leader's view decides.
"""

from __future__ import annotations

import structlog

from kstore.errors import NoSpace, ProtocolError
from kstore.fsm import Command
from kstore.model import Do
from kstore.wire import unpack

log = structlog.get_logger('kstore.space')

WARN_SHARE = 0.8
"""Share of the quota from which `SPACE_LOW` is raised."""
CLEAR_SHARE = 0.95
"""Share of the quota below which `NOSPACE` ends: a little less than where it began, so that it does not flutter."""
RETRY_S = 1.0
"""Pause before a flush that found the disk full is tried again."""


class Space:
    """See the module's text."""

    def __init__(self, quota_bytes: int) -> None:
        """quota_bytes: 0 for none."""
        self.quota_bytes = quota_bytes
        self.used_bytes = 0
        self.over_quota = False
        self.low = False
        self.disk_full = False

    @property
    def full(self) -> bool:
        return self.over_quota or self.disk_full

    @property
    def alarms(self) -> list[str]:
        named = (('DISK_FULL', self.disk_full), ('NOSPACE', self.over_quota), ('SPACE_LOW', self.low))
        return [name for name, raised in named if raised]

    def flushed(self, used_bytes: int) -> None:
        """The tables are on disk, and use this much of it."""
        self.used_bytes = used_bytes
        if self.disk_full:
            self.disk_full = False
            log.info('disk has room again')
        if not self.quota_bytes:
            return
        share = used_bytes / self.quota_bytes
        over = share >= (CLEAR_SHARE if self.over_quota else 1.0)
        if over != self.over_quota:
            self.over_quota = over
            if over:
                log.error('quota was reached, puts are refused', used_bytes=used_bytes, quota_bytes=self.quota_bytes)
            else:
                log.info('quota has room again', used_bytes=used_bytes, quota_bytes=self.quota_bytes)
        low = share >= WARN_SHARE
        if low and not self.low:
            log.warning('quota is nearly used up', used_bytes=used_bytes, quota_bytes=self.quota_bytes)
        self.low = low

    def refused(self, error: OSError) -> None:
        """The disk was full during a flush."""
        if not self.disk_full:
            log.error('disk is full, puts are refused', err=str(error))
        self.disk_full = True

    def admit(self, command: bytes) -> None:
        """Raises NoSpace for a command that needs room while there is none."""
        if not self.full or not _grows(command):
            return
        if self.disk_full:
            raise NoSpace('the disk is full: no puts until there is room; deletes and compaction work')
        used, quota = self.used_bytes >> 20, self.quota_bytes >> 20
        raise NoSpace(f'the state uses {used} MiB of its quota of {quota} MiB: delete keys; puts are refused meanwhile')


def _grows(command: bytes) -> bool:
    """A retry counts as none that does: it may have been applied, so no refusal would be true."""
    try:
        retry, what, *arguments = unpack(command)[3:]
        if retry:
            return False
        if what == Command.TXN:
            return any(operation[0] == Do.PUT for branch in arguments[1:3] for operation in branch)
    except (ProtocolError, ValueError, TypeError, IndexError):
        return False  # the state machine says what is wrong with it
    return what in (Command.PUT, Command.GRANT)
