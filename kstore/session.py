"""Exactly once: the results of recent requests, by client and sequence number. Replicated state, bounded.

A client numbers its writes and says with each the lowest number it still waits for (`acked`); results below that are
dropped. A repeated request gets the result of its first run. A retry from a client that has been forgotten is refused
(SessionExpired) rather than run twice. Theory: Ongaro's thesis §6.3.

Everything here depends only on the sequence of applied entries, so it is equal on all members.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from kstore.engine.layers import Engine, Table
from kstore.errors import Overloaded, SessionExpired
from kstore.wire import pack, unpack

SESSIONS_MAX = 4_096
"""Clients remembered; the one idle longest goes first."""
SESSION_RESULTS_MAX = 4_096
"""Unacknowledged results a client; one request more is refused."""
SESSIONS_BYTES_MAX = 64 * 1024 * 1024
"""Results in all; the clients idle longest go first."""


@dataclass(slots=True)
class Session:
    acked: int = 0
    last_index: int = 0
    """Log index of its newest request: the order of forgetting."""
    size: int = 0
    results: OrderedDict[int, bytes] = field(default_factory=OrderedDict)


class Sessions:
    """See the module's text."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._dirty: set[int] = set()
        self.load()

    def load(self) -> None:
        found = []
        for raw, packed in self._engine.scan(Table.SESSIONS):
            acked, last_index, results = unpack(packed)
            session = Session(acked, last_index, sum(len(r) for _, r in results), OrderedDict(results))
            found.append((int.from_bytes(raw, 'big'), session))
        found.sort(key=lambda item: item[1].last_index)
        self._sessions = OrderedDict(found)
        self.size = sum(s.size for s in self._sessions.values())
        self._dirty = set()

    def __len__(self) -> int:
        return len(self._sessions)

    def save(self) -> None:
        """Put what changed into the engine; before a flush and before a view."""
        for client in self._dirty:
            key = client.to_bytes(8, 'big')
            session = self._sessions.get(client)
            if session is None:
                self._engine.delete(Table.SESSIONS, key)
            else:
                self._engine.put(
                    Table.SESSIONS, key, pack([session.acked, session.last_index, list(session.results.items())])
                )
        self._dirty.clear()

    def begin(self, client: int, sequence: int, acked: int, retry: bool, index: int) -> bytes | None:
        """The result of an earlier run of this request, or None: run it now and `record` its result.

        Raises SessionExpired, Overloaded.
        """
        session = self._sessions.get(client)
        if session is None:
            if retry:
                raise SessionExpired('the outcome of the first try is unknown: its session has been forgotten')
            session = self._sessions[client] = Session()
        else:
            self._sessions.move_to_end(client)
        session.last_index = index
        self._dirty.add(client)
        if acked > session.acked:
            self._drop(session, acked)
        known = session.results.get(sequence)
        if known is not None:
            return known
        if sequence < session.acked:
            raise SessionExpired('the client has already acknowledged this request')
        if len(session.results) >= SESSION_RESULTS_MAX:
            raise Overloaded(f'more than {SESSION_RESULTS_MAX} unacknowledged requests of one client')
        return None

    def record(self, client: int, sequence: int, result: bytes) -> None:
        session = self._sessions[client]
        session.results[sequence] = result
        session.size += len(result)
        self.size += len(result)
        while len(self._sessions) > SESSIONS_MAX or (self.size > SESSIONS_BYTES_MAX and len(self._sessions) > 1):
            forgotten, old = self._sessions.popitem(last=False)
            self.size -= old.size
            self._dirty.add(forgotten)

    def _drop(self, session: Session, acked: int) -> None:
        # Oldest first and stop at the first that is still wanted: a straggler behind it only goes a little later.
        results = session.results
        while results:
            sequence, result = results.popitem(last=False)
            if sequence >= acked:
                results[sequence] = result
                results.move_to_end(sequence, last=False)
                break
            session.size -= len(result)
            self.size -= len(result)
        session.acked = acked
