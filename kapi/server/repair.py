"""Addresses of Services against their claims: what leaked is given back, what was lost is claimed again.

Claims and Services are separate keys, so a crash between the two, a restored backup or somebody who writes to the store
by hand can leave one without the other. Two Services with one address cannot be mended here (either may be in use):
an event on the one without the claim says so. Reasons and sense of the events are upstream's
(pkg/registry/core/service/ipallocator/controller/repair.go, portallocator/controller/repair.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from kapi.authn.user import SYSTEM
from kapi.errors import AlreadyExists
from kapi.registry.addresses import IPS, RANGES
from kapi.registry.store import Write
from kapi.storage.base import KeyMissing
from kcore.meta.objects import key_of
from kcore.meta.times import format_time

if TYPE_CHECKING:
    from kapi.server.service import ApiServer
    from kapi.storage.base import Versioned
    from kapi.storage.entries import Entry

Obj = dict[str, Any]
log = structlog.get_logger('kapi.repair')

SERVICES = '/registry/services/'
ORPHAN_S = 120.0
"""Longer than any request lives: a claim without a Service for this long belongs to nobody."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Pairs are (claim's key, Service)."""

    orphans: frozenset[str] = frozenset()
    """Claims that no Service has."""
    lost: list[tuple[str, Obj]] = field(default_factory=list)
    """Addresses in use that nobody claims; the oldest Service has the right to each."""
    doubles: list[tuple[str, Obj]] = field(default_factory=list)
    """Services whose address is another's."""
    outside: list[tuple[str, Obj]] = field(default_factory=list)
    """Services whose address is in no range that this cluster gives away."""


def compare(users: Mapping[str, list[Obj]], claims: Mapping[str, Obj], inside: Iterable[str]) -> Findings:
    """`users`: key of a claim → Services with that address. `inside`: those of these keys that are within a range."""
    found, within = Findings(frozenset(claims.keys() - users.keys())), frozenset(inside)
    for key, services in users.items():
        owner = claims.get(key, {}).get('owner')
        # Whom the claim names goes first, then the oldest.
        by_right = sorted(
            services, key=lambda s: (key_of(s) != owner, s['metadata'].get('creationTimestamp') or '', key_of(s))
        )
        found.doubles.extend((key, other) for other in by_right[1:])
        if key not in within:
            found.outside.append((key, by_right[0]))
        elif key not in claims:
            found.lost.append((key, by_right[0]))
    return found


class AddressRepair:
    """Every server repairs; the store's conditional writes and the events' fixed names make that the same as one."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._since: dict[tuple[str, int], float] = {}
        """Orphans (key, revision) and when they were first seen, in monotonic seconds."""

    async def run_once(self) -> None:
        """Call now and then. Raises StorageError, ApiError."""
        cache, addresses = self._server.cache, self._server.addresses
        claims = dict(cache.resource(RANGES).entries)
        users: dict[str, list[Obj]] = {}
        for entry in cache.resource(SERVICES).entries.values():
            for key in addresses.held(entry.obj):
                users.setdefault(key, []).append(entry.obj)
        found = compare(users, {k: e.obj for k, e in claims.items()}, filter(addresses.gives, users))
        await self._give_back([claims[key] for key in sorted(found.orphans)])
        for key, service in found.lost:
            if await addresses.reserve(key, service):
                log.warning('an address in use was not claimed; claimed again', claim=key, object=key_of(service))
                await self._tell(key, service, 'NotAllocated', 'is not allocated; repairing')
        for key, service in found.doubles:
            await self._tell(key, service, 'AlreadyAllocated', 'is assigned to several services; recreate this one')
        for key, service in found.outside:
            await self._tell(key, service, 'OutOfRange', 'is not in the range of this cluster; recreate the service')

    async def _give_back(self, orphans: list[Entry]) -> None:
        now = self._server.env.clock.monotonic()
        self._since = {(e.key, e.rv): self._since.get((e.key, e.rv), now) for e in orphans}
        for orphan in orphans:
            if now - self._since[orphan.key, orphan.rv] < ORPHAN_S:
                continue

            def still_the_same(current: Versioned, rv: int = orphan.rv) -> None:
                if current.rv != rv:
                    raise KeyMissing(current.key)

            try:
                await self._server.cache.delete(orphan.key, check=still_the_same)
            except KeyMissing:
                continue  # given back by another server, and perhaps claimed anew since
            log.warning('an address that no service uses was given back', claim=orphan.key, owner=orphan.obj['owner'])

    async def _tell(self, key: str, service: Obj, reason: str, what: str) -> None:
        """An event with a name of its own per finding: told once by whichever server is first, until it expires."""
        meta, address = service['metadata'], key.rpartition('/')[2]
        is_ip = key.startswith(IPS)
        subject, noun = ('ClusterIP', 'Cluster IP') if is_ip else ('Port', 'Node port')
        server, stamp = self._server, format_time(self._server.env.clock.wall())
        kind = server.catalog.find('', 'v1', 'events')
        name = f'{meta["name"]}.{meta["uid"][:8]}.{address}.{reason}'.lower()
        if kind is None or server.cache.peek(server.registry.key(kind, meta['namespace'], name)) is not None:
            return
        event = {
            'apiVersion': 'v1', 'kind': 'Event', 'metadata': {'name': name},
            'involvedObject': {
                'apiVersion': 'v1', 'kind': 'Service', 'name': meta['name'], 'namespace': meta['namespace'],
                'uid': meta['uid'], 'resourceVersion': meta.get('resourceVersion', ''),
            },
            'type': 'Warning', 'reason': subject + reason, 'message': f'{noun} {address} {what}',
            'count': 1, 'firstTimestamp': stamp, 'lastTimestamp': stamp,
            'source': {'component': 'ipallocator-repair-controller' if is_ip else 'portallocator-repair-controller'},
        }  # fmt: skip
        log.warning('service address', object=key_of(service), reason=subject + reason, address=address)
        try:
            await server.registry.create(kind, meta['namespace'], event, Write(SYSTEM))
        except AlreadyExists:
            return  # told by another server
