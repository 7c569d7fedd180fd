"""Counters of this machine's network interfaces, from /proc/net/dev. Pods have none: they share the node's network."""

from __future__ import annotations

from dataclasses import dataclass

from knode.runtime.shim import host


@dataclass(frozen=True, slots=True)
class Interface:
    """Since boot."""

    name: str
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


def interfaces() -> list[Interface]:
    """All but the loopback; the one with the default route first. Source: cadvisor lib/container/libcontainer."""
    found = parse(host.read_file('/proc/net/dev').decode())
    default = default_route(host.read_file('/proc/net/route').decode())
    return sorted(found, key=lambda i: i.name != default)


def parse(text: str) -> list[Interface]:
    found = []
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(':')
        n = [int(field) for field in rest.split()]
        if name.strip() != 'lo':
            found.append(Interface(name.strip(), *n[0:4], *n[8:12]))
    return found


def default_route(text: str) -> str:
    """Name of its interface; empty: there is none."""
    rows = (line.split() for line in text.splitlines()[1:])
    return next((row[0] for row in rows if row[1] == '00000000'), '')
