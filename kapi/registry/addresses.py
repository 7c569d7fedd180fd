"""Service addresses: cluster IPs and node ports, one key in the store each, so that no two servers give one away twice.

A claim is a conditional create of `/registry/ranges/<range>/<address>`; who loses the race picks another. A crash
between claim and Service leaves an orphan, which `kapi/server/repair.py` gives back.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import orjson

from kapi.errors import InternalError, InvalidObject
from kapi.registry.strategy import Invalid
from kapi.storage.base import KeyExists, KeyMissing
from kapi.storage.cache import Cache
from kcore.env import Env
from kcore.meta.objects import key_of

Obj = dict[str, Any]

RANGES = '/registry/ranges/'
IPS = f'{RANGES}serviceips/'
PORTS = f'{RANGES}servicenodeports/'
PICKS_MAX = 64
"""Random picks before the range is searched from its start."""


class ServiceAddresses:
    """Hooks of the `services` registry."""

    def __init__(self, cache: Cache, env: Env, cidr: str, ports: range) -> None:
        self._cache = cache
        self._env = env
        self.network = ipaddress.ip_network(cidr)
        self._ports = ports

    @property
    def first_ip(self) -> str:
        return str(self.network[1])

    def held(self, obj: Obj) -> list[str]:
        spec = obj.get('spec') or {}
        found = []
        ip = spec.get('clusterIP')
        if ip and ip != 'None' and spec.get('type') != 'ExternalName':
            found.append(IPS + ip)
        numbers = {p['nodePort'] for p in spec.get('ports') or () if p.get('nodePort')}
        numbers |= {n for n in (spec.get('healthCheckNodePort'),) if n}
        return found + [f'{PORTS}{n}' for n in sorted(numbers)]

    async def claim(self, new: Obj, old: Obj | None, *, dry_run: bool) -> list[str]:
        """Reserve what `new` asks for and fill in what it leaves open. Raises InvalidObject, InternalError."""
        spec = new.setdefault('spec', {})
        before = set(self.held(old)) if old else set()
        claimed: list[str] = []
        try:
            for key in self.held(new):
                if key not in before:
                    await self._take(key, new, claimed, dry_run=dry_run)
            kind = spec.get('type') or 'ClusterIP'
            if kind != 'ExternalName' and not spec.get('clusterIP'):
                key = await self._pick(IPS, self._some_ips(), new, claimed, dry_run=dry_run)
                spec['clusterIP'] = key.removeprefix(IPS)
            if kind != 'ExternalName':
                spec['clusterIPs'] = [spec['clusterIP']]
            if kind in {'NodePort', 'LoadBalancer'}:
                await self._node_ports(new, claimed, dry_run=dry_run)
            local = kind == 'LoadBalancer' and spec.get('externalTrafficPolicy') == 'Local'
            if local and not spec.get('healthCheckNodePort'):
                spec['healthCheckNodePort'] = await self._some_port(new, claimed, dry_run=dry_run)
        except BaseException:
            await self.release(claimed)
            raise
        return claimed

    async def _node_ports(self, new: Obj, claimed: list[str], *, dry_run: bool) -> None:
        if new['spec'].get('type') == 'LoadBalancer' and new['spec'].get('allocateLoadBalancerNodePorts') is False:
            return
        for port in new['spec'].get('ports') or ():
            if not port.get('nodePort'):
                port['nodePort'] = await self._some_port(new, claimed, dry_run=dry_run)

    async def _some_port(self, new: Obj, claimed: list[str], *, dry_run: bool) -> int:
        key = await self._pick(PORTS, self._some_ports(), new, claimed, dry_run=dry_run)
        return int(key.removeprefix(PORTS))

    def _some_ips(self) -> Iterator[str]:
        size = self.network.num_addresses
        for _ in range(PICKS_MAX):
            yield str(self.network[self._env.rng.randrange(2, size - 1)])
        for i in range(2, size - 1):
            yield str(self.network[i])

    def _some_ports(self) -> Iterator[str]:
        for _ in range(PICKS_MAX):
            yield str(self._env.rng.choice(self._ports))
        for n in self._ports:
            yield str(n)

    async def _pick(
        self, prefix: str, candidates: Iterator[str], new: Obj, claimed: list[str], *, dry_run: bool
    ) -> str:
        for candidate in candidates:
            key = prefix + candidate
            if self._cache.peek(key) is None and await self._create(key, new, claimed, dry_run=dry_run):
                return key
        raise InternalError('failed to allocate: range is full')

    async def _take(self, key: str, new: Obj, claimed: list[str], *, dry_run: bool) -> None:
        """An address that the client names."""
        address = key.rpartition('/')[2]
        name = new['metadata'].get('name', '')
        if key.startswith(IPS):
            if not self.gives(key):
                why = (
                    f'Invalid value: ["{address}"]: failed to allocate IP {address}: the provided IP ({address}) '
                    f'is not in the valid range. The range of valid IPs is {self.network}'
                )
                raise _invalid(name, 'spec.clusterIPs', why)
            if not await self._create(key, new, claimed, dry_run=dry_run):
                why = f'Invalid value: ["{address}"]: failed to allocate IP {address}: provided IP is already allocated'
                raise _invalid(name, 'spec.clusterIPs', why)
            return
        if not self.gives(key):
            span = f'{self._ports[0]}-{self._ports[-1]}'
            why = (
                f'Invalid value: {address}: provided port is not in the valid range. The range of valid ports is {span}'
            )
            raise _invalid(name, 'spec.ports[0].nodePort', why)
        if not await self._create(key, new, claimed, dry_run=dry_run):
            raise _invalid(
                name, 'spec.ports[0].nodePort', f'Invalid value: {address}: provided port is already allocated'
            )

    async def _create(self, key: str, new: Obj, claimed: list[str], *, dry_run: bool) -> bool:
        if dry_run:
            return self._cache.peek(key) is None
        if not await self.reserve(key, new):
            return False
        claimed.append(key)
        return True

    async def reserve(self, key: str, service: Obj) -> bool:
        """Write the claim; False when somebody has it."""
        claim = {'metadata': {'name': key.rpartition('/')[2]}, 'owner': key_of(service)}
        try:
            await self._cache.create(key, orjson.dumps(claim))
        except KeyExists:
            return False
        return True

    def gives(self, key: str) -> bool:
        """Whether the claim of that key is for an address within the ranges."""
        prefix, _, address = key.rpartition('/')
        if f'{prefix}/' == PORTS:
            return int(address) in self._ports
        try:
            return ipaddress.ip_address(address) in self.network
        except ValueError:
            return False

    async def release(self, keys: list[str]) -> None:
        for key in keys:
            try:
                await self._cache.delete(key)
            except KeyMissing:
                continue


def _invalid(name: str, field: str, why: str) -> InvalidObject:
    return InvalidObject('Service', '', name, [Invalid(field, why)])
