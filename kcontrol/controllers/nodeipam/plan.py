"""Which network a node gets. Pure; nothing is stored but the nodes themselves, so a restart forgets nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

PREFIX = 24


def capacity(cluster_cidr: str) -> int:
    """How many nodes can have a network."""
    return int(2 ** (PREFIX - ipaddress.IPv4Network(cluster_cidr).prefixlen))


def allocate(cluster_cidr: str, used: Iterable[str]) -> str | None:
    """The lowest free /24 of `cluster_cidr`; None when all are taken. Networks of any size in `used` are avoided."""
    taken = [ipaddress.ip_network(cidr, strict=False) for cidr in used]
    exact = {n for n in taken if n.prefixlen == PREFIX}
    others = [n for n in taken if n.prefixlen != PREFIX]
    for network in ipaddress.IPv4Network(cluster_cidr).subnets(new_prefix=PREFIX):
        if network not in exact and not any(network.overlaps(o) for o in others if o.version == 4):
            return str(network)
    return None
