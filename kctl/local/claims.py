"""The claim of a running cluster on its block of addresses, where every cluster of this machine can see it.

Port bases 3200 apart, or within one hundred, have one block: two such clusters would give one address to two pods. A
claim is an abstract Unix socket whose name tells whose it is. The kernel lists it to everybody who shares the loopback
addresses, whatever container or user they are in, and takes it back when the last process that inherited it has ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kcore.env import Env
from kctl.local.layout import ADDRESS_BLOCKS, PORT_BASE_MAX, ClusterError, Layout

SOCKETS = Path('/proc/net/unix')
PREFIX = 'kubeling-addresses-'
_NAME = re.compile(rf'@{PREFIX}(?P<block>\d+)-(?P<base>\d+)-(?P<cluster>\w+)-(?P<pid>\d+):(?P<data>.*)')
NAME_BYTES_MAX = 107
"""What the kernel allows a name; a longer data directory is told by its end."""


@dataclass(frozen=True, slots=True)
class Claim:
    block: int
    port_base: int
    cluster: str
    """What no other data directory has."""
    pid: int
    data: str

    @property
    def name(self) -> str:
        head = f'{PREFIX}{self.block}-{self.port_base}-{self.cluster}-{self.pid}:'
        return head + os.fsencode(self.data)[-(NAME_BYTES_MAX - len(head) - 1) :].decode(errors='ignore')


def claim_of(layout: Layout) -> Claim:
    digest = hashlib.sha256(os.fsencode(layout.data)).hexdigest()[:8]
    return Claim(layout.block, layout.port_base, digest, os.getpid(), str(layout.data))


def claims(env: Env) -> list[Claim]:
    """All that hold, on this machine; none where the kernel has no such names."""
    try:
        lines = env.disk.read(SOCKETS).decode(errors='replace').splitlines()
    except FileNotFoundError:
        return []
    found = (_NAME.fullmatch(line.split(maxsplit=7)[-1]) for line in lines)
    return [Claim(int(m['block']), int(m['base']), m['cluster'], int(m['pid']), m['data']) for m in found if m]


def check(layout: Layout, env: Env) -> None:
    """Raises ClusterError that names the cluster that has the addresses of this one."""
    mine, held = claim_of(layout), claims(env)
    for other in held:
        if other.block == mine.block and other.cluster != mine.cluster and layout.nodes:
            raise ClusterError(
                f'{layout.data} (--port-base {layout.port_base}) needs the addresses {layout.cluster_cidr}, '
                f'{layout.service_cidr} and {layout.node_cidr}, which the cluster in {other.data} '
                f'(--port-base {other.port_base}, process {other.pid}) has; stop that one, or start this one in a new '
                f'--data-dir with another block: --port-base {_free(layout, {claim.block for claim in held})}.'
            )


def _free(layout: Layout, taken: set[int]) -> int:
    """The next port base with a block that nobody has."""
    bases = (layout.port_base + 100 * step for step in range(1, ADDRESS_BLOCKS))
    below = (base if base <= PORT_BASE_MAX else base - 100 * ADDRESS_BLOCKS for base in bases)
    return next((base for base in below if Layout(layout.data, port_base=base).block not in taken), layout.port_base)


@contextlib.contextmanager
def held(layout: Layout, env: Env) -> Iterator[None]:
    """Claim the block of a cluster with nodes. Raises ClusterError; of two at the same instant both may hear it."""
    if not layout.nodes or not SOCKETS.exists():
        yield
        return
    with socket.socket(socket.AF_UNIX) as claim:
        claim.bind('\0' + claim_of(layout).name)
        check(layout, env)
        yield
