"""Loopback addresses of this node's pods, out of its podCIDR. Pure bookkeeping; the checkpoint keeps the result."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from knode.errors import NoAddress


class AddressPool:
    """Each pod uid has one address until it is released. Addresses are reused as late as possible."""

    def __init__(self) -> None:
        self._network: ipaddress.IPv4Network | None = None
        self._by_uid: dict[str, str] = {}
        self._taken: set[str] = set()
        self._next = 0

    @property
    def cidr(self) -> str:
        return str(self._network) if self._network else ''

    @property
    def prefix(self) -> int:
        """Length of the podCIDR; 0 while there is none."""
        return self._network.prefixlen if self._network else 0

    def set_cidr(self, cidr: str) -> None:
        """Raises ValueError. Addresses already given stay."""
        network = ipaddress.IPv4Network(cidr)
        if network != self._network:
            self._network, self._next = network, 0

    def adopt(self, uid: str, address: str) -> None:
        """An address given in an earlier life of the agent."""
        if address:
            self._by_uid[uid] = address
            self._taken.add(address)

    def take(self, uid: str) -> str:
        """Idempotent. Raises NoAddress when there is no podCIDR yet or none is left in it."""
        if uid in self._by_uid:
            return self._by_uid[uid]
        if self._network is None:
            raise NoAddress('the node has no podCIDR yet')
        # .0 names the network, .1 is the node's own place in it and the last one is broadcast.
        first, count = int(self._network.network_address) + 2, self._network.num_addresses - 3
        for offset in self._search(count):
            address = str(ipaddress.IPv4Address(first + offset))
            if address not in self._taken:
                self._next = (offset + 1) % count
                self.adopt(uid, address)
                return address
        raise NoAddress(f'no address left in {self._network}')

    def _search(self, count: int) -> Iterable[int]:
        return ((self._next + i) % count for i in range(max(count, 0)))

    def release(self, uid: str) -> None:
        address = self._by_uid.pop(uid, None)
        if address is not None:
            self._taken.discard(address)
