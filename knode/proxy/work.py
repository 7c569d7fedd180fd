"""What all frontends of one agent's proxy share: the loop, a scratch buffer, and what they count."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from typing import Any

from kcore.env import Clock

CONNECTIONS_MAX = 4_000
"""Connections through one agent, of two descriptors each; one more is reset."""
FLOWS_MAX = 2_000
"""Flows of datagrams through one agent, a descriptor each; for one more the one silent longest ends."""
PORTS_MAX = 8_000
"""Frontends that one agent listens at, a descriptor each; one more is told by an event."""
CHUNK_BYTES = 256 * 1024
"""Most that one way of a connection holds back, and reads at once."""


DESCRIPTORS_MAX = 65_536
"""What the agent asks of its hard limit."""


def descriptors() -> int:
    """How many this process may have from now on: a soft limit of 1024, as login shells have, is raised.

    Containers keep theirs: they are made by a process that began before.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return DESCRIPTORS_MAX if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


class Work:
    def __init__(self, clock: Clock, prefix: Callable[[], int]) -> None:
        """prefix: length of a node's podCIDR."""
        # The pods' part of the agent must never be without descriptors: the proxy uses half of them at most.
        room = descriptors()
        self.connections_max = min(CONNECTIONS_MAX, room // 8)
        self.flows_max = min(FLOWS_MAX, room // 16)
        self.ports_max = min(PORTS_MAX, room // 8)
        self.loop = asyncio.get_running_loop()
        self.now, self.prefix = clock.monotonic, prefix
        self.scratch = memoryview(bytearray(CHUNK_BYTES))
        self.relays: set[Any] = set()
        self.connections = 0
        """Open now, with those that look for a backend."""
        self.flows = 0
        """Of datagrams, open now."""
        self.bytes = 0
        """Carried so far, both ways."""
        self.failed = 0
        """Backends that did not answer so far."""
        self.refused = 0
        """Clients turned away so far."""
