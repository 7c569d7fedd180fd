"""Which of several backends a new connection or flow goes to: in turn, or where its client has been before. Pure.

Clients that are not known go where a hash of both sends them, so that a proxy that takes over from a dead one, or has
forgotten, sends most clients where they have been.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from knode.proxy.model import Backend

CLIENTS_MAX = 10_000
"""Clients remembered for one port of a Service; beyond, the one seen longest ago is forgotten."""
TRIES_MAX = 4
"""Backends that a connection tries before its client is refused."""


class Choice:
    """Of one port of a Service. Times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._turn = 0
        self._clients: dict[str, tuple[Backend, float]] = {}
        """The client seen last is last."""

    def order(self, backends: Sequence[Backend], client: str, affinity_s: int, now: float) -> list[Backend]:
        """Whom to try, one after the other."""
        count = len(backends)
        if not count:
            return []
        if affinity_s:
            known = self._known(client, affinity_s, now)
            first = backends.index(known) if known in backends else _by_hash(backends, client)
        else:
            first = self._turn % count
            self._turn = first + 1
        return [backends[(first + i) % count] for i in range(min(count, TRIES_MAX))]

    def _known(self, client: str, affinity_s: int, now: float) -> Backend | None:
        backend, seen = self._clients.get(client, (None, 0.0))
        return backend if now - seen < affinity_s else None

    def keep(self, client: str, backend: Backend, now: float) -> None:
        """The client was sent there."""
        self._clients.pop(client, None)
        self._clients[client] = backend, now
        if len(self._clients) > CLIENTS_MAX:
            del self._clients[next(iter(self._clients))]

    def forget(self) -> None:
        """Affinity was switched off."""
        self._clients.clear()


def _by_hash(backends: Sequence[Backend], client: str) -> int:
    """The highest score wins: of the clients of a backend that goes only they are sent elsewhere."""
    return max(range(len(backends)), key=lambda i: zlib.crc32(f'{client}|{backends[i].ip}:{backends[i].port}'.encode()))
