"""What the planner says and the data path does: frontends, where they lead, and how one of several is chosen."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Address = tuple[str, int]
LOOPBACK = '127.'


@dataclass(frozen=True, slots=True, order=True)
class Frontend:
    """Where a Service is reached."""

    protocol: str
    ip: str
    port: int

    def __str__(self) -> str:
        return f'{self.ip}:{self.port}/{self.protocol}'


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    ip: str
    port: int
    node: str = ''

    @property
    def address(self) -> Address:
        return self.ip, self.port


@dataclass(frozen=True, slots=True)
class Target:
    """Where a frontend leads."""

    service: str
    """`namespace/name`."""
    port_name: str
    """`namespace/name:port`, as upstream names a port of a Service: frontends of one share their clients' affinity."""
    backends: tuple[Backend, ...]
    affinity_s: int = 0
    """How long a client keeps its backend after its last connection; 0: none is kept."""
    near: bool = False
    """Only backends of the client's own node (internalTrafficPolicy Local)."""
    sources: tuple[ipaddress.IPv4Network, ...] = ()
    """Who may come; empty: anybody."""

    def allows(self, client: str) -> bool:
        if not self.sources:
            return True
        address = ipaddress.IPv4Address(client)
        return any(address in network for network in self.sources)


@dataclass(frozen=True, slots=True)
class Health:
    """What a load balancer hears at a Service's health check port."""

    service: str
    local: int
    """Endpoints of this node that serve."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One Service's part."""

    targets: dict[Frontend, Target]
    """Frontends without a backend are not in it: who connects there is refused."""
    health: dict[int, Health]
    """By healthCheckNodePort."""


NOTHING = Plan({}, {})
