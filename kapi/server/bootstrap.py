"""Objects that are always there: system namespaces, the Service `default/kubernetes` and its endpoints.

Every API server ensures them at its start; creating what exists already is fine, so servers may race. Each server
keeps a key with a time to live under `/registry/masterleases/`, and the endpoints are the keys that are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import orjson
import structlog

from kapi.authn.user import SYSTEM
from kapi.authz import flow_defaults, policy
from kapi.authz.reconcile import mended
from kapi.errors import AlreadyExists, ApiError, InvalidObject, NotFound
from kapi.flow.objects import updated
from kapi.registry.store import Write
from kapi.server.repair import AddressRepair
from kapi.storage.base import KeyExists, KeyMissing, StorageError, Versioned
from kapi.storage.codec import clone
from kcore.config import split_address
from kcore.meta.tokensecrets import SINCE, TRACKING, day

if TYPE_CHECKING:
    from kapi.server.service import ApiServer

Obj = dict[str, Any]
log = structlog.get_logger('kapi.bootstrap')

NAMESPACES = ('default', 'kube-system', 'kube-public', 'kube-node-lease')
MASTER_LEASES = '/registry/masterleases/'
MASTER_LEASE_TTL_S = 15
MASTER_LEASE_REFRESH_S = 5.0
CLAIM_TRIES, CLAIM_RETRY_S = 50, 0.1
"""A claim that no Service follows for that long is an error: who made it has died, and a repair will free it."""
API_PORT = 443
FLOW_GROUP = 'flowcontrol.apiserver.k8s.io'
LABELS = {'component': 'apiserver', 'provider': 'kubernetes'}


async def ensure(server: ApiServer, group: str, plural: str, namespace: str, obj: Obj) -> None:
    """Create unless it exists; a kind that is not served is skipped."""
    kind = server.catalog.find(group, 'v1', plural)
    if kind is None:
        return
    if server.cache.peek(server.registry.key(kind, namespace, obj['metadata']['name'])) is not None:
        return
    obj |= {'apiVersion': kind.resource.api_version, 'kind': kind.resource.kind}
    try:
        await server.registry.create(kind, namespace, obj, Write(SYSTEM))
    except AlreadyExists:
        return  # another server was faster


async def bootstrap(server: ApiServer) -> None:
    """Everything but the endpoints. Raises StorageUnavailable."""
    for name in NAMESPACES:
        await ensure(server, '', 'namespaces', '', {'metadata': {'name': name}})
    since = {'metadata': {'name': TRACKING}, 'data': {SINCE: day(server.env.clock.wall())}}
    await ensure(server, '', 'configmaps', 'kube-system', since)
    spec = {
        'type': 'ClusterIP',
        'clusterIP': server.addresses.first_ip,
        'ports': [{'name': 'https', 'port': API_PORT, 'protocol': 'TCP', 'targetPort': API_PORT}],
    }
    await _ensure_service(server, {'metadata': {'name': 'kubernetes', 'labels': LABELS}, 'spec': spec})
    roles = [('clusterroles', o) for o in policy.cluster_roles()]
    roles += [('clusterrolebindings', o) for o in policy.cluster_role_bindings()]
    await asyncio.gather(
        *(_mend(server, policy.GROUP, plural, obj, mended) for plural, obj in roles), ensure_flows(server)
    )
    server.bootstrapped = True


async def ensure_flows(server: ApiServer) -> None:
    """Levels first, that no schema leads nowhere. Raises StorageUnavailable."""
    for plural, objects in (
        ('prioritylevelconfigurations', flow_defaults.LEVELS),
        ('flowschemas', flow_defaults.SCHEMAS),
    ):
        await asyncio.gather(*(_mend(server, FLOW_GROUP, plural, clone(o), updated) for o in objects))


async def _ensure_service(server: ApiServer, obj: Obj) -> None:
    """The API's own Service, whose address another server may have claimed a moment before it creates it."""
    for _ in range(CLAIM_TRIES):
        try:
            return await ensure(server, '', 'services', 'default', clone(obj))
        except InvalidObject as e:
            log.info('the address of the API is being claimed by another server', err=str(e))
        await asyncio.sleep(CLAIM_RETRY_S)
        await server.cache.fresh()
    await ensure(server, '', 'services', 'default', obj)


async def _mend(server: ApiServer, group: str, plural: str, wanted: Obj, merge: Callable[[Obj, Obj], Obj]) -> None:
    """Create, or change what `merge` finds to be changed. Raises StorageUnavailable."""
    kind = server.catalog.find(group, 'v1', plural)
    if kind is None:
        return
    name = wanted['metadata']['name']
    entry = server.cache.peek(server.registry.key(kind, '', name))
    if entry is None:
        await ensure(server, group, plural, '', wanted)
        return
    if merge(clone(entry.obj), wanted) == entry.obj:
        return

    async def transform(old: Obj) -> Obj:
        return merge(old, wanted)

    await server.registry.update(kind, '', name, transform, Write(SYSTEM))


async def keep_endpoints(server: ApiServer, address: str) -> NoReturn:
    """Stay in the list of API servers, and keep the published list true."""
    repair = AddressRepair(server)
    while True:
        try:
            await _renew(server, address)
            await _publish(server)
            await repair.run_once()
        except (StorageError, ApiError) as e:
            log.warning('endpoints of the API were not updated', err=str(e))
        await asyncio.sleep(MASTER_LEASE_REFRESH_S)


async def _renew(server: ApiServer, address: str) -> None:
    key = MASTER_LEASES + address
    # The value changes with every renewal, because an equal one would not be written and the key would expire.
    stamp = server.env.clock.wall().isoformat()
    value = orjson.dumps({'metadata': {'name': address}, 'renewed': stamp})

    async def change(_: Versioned) -> bytes:
        return value

    try:
        await server.cache.update(key, change, ttl_s=MASTER_LEASE_TTL_S)
    except KeyMissing:
        try:
            await server.cache.create(key, value, ttl_s=MASTER_LEASE_TTL_S)
        except KeyExists:
            return  # written by ourselves a moment ago through a retried request


async def leave(server: ApiServer, address: str) -> None:
    """Take this server off the list at an orderly stop."""
    try:
        await server.cache.delete(MASTER_LEASES + address)
        await _publish(server)
    except (StorageError, ApiError) as e:
        log.info('endpoints of the API were left behind', err=str(e))


async def _publish(server: ApiServer) -> None:
    await server.cache.fresh()
    addresses = [split_address(k.removeprefix(MASTER_LEASES)) for k in server.cache.resource(MASTER_LEASES).keys]
    if not addresses:
        return
    subsets: list[Obj] = [
        {
            'addresses': [{'ip': h} for h, p in addresses if p == port],
            'ports': [{'name': 'https', 'port': port, 'protocol': 'TCP'}],
        }
        for port in sorted({p for _, p in addresses})
    ]
    await _put(
        server,
        '',
        'endpoints',
        {
            'metadata': {'name': 'kubernetes', 'labels': {'endpointslice.kubernetes.io/skip-mirror': 'true'}},
            'subsets': subsets,
        },
    )
    for subset in subsets:
        port = subset['ports'][0]['port']
        name = 'kubernetes' if len(subsets) == 1 else f'kubernetes-{port}'
        ready = {'ready': True, 'serving': True, 'terminating': False}
        await _put(server, 'discovery.k8s.io', 'endpointslices', {
            'metadata': {'name': name, 'labels': {'kubernetes.io/service-name': 'kubernetes'}},
            'addressType': 'IPv4',
            'endpoints': [{'addresses': [a['ip']], 'conditions': ready} for a in subset['addresses']],
            'ports': subset['ports'],
        })  # fmt: skip


async def _put(server: ApiServer, group: str, plural: str, wanted: Obj) -> None:
    """Create or bring up to date; an equal object is not written."""
    kind = server.catalog.find(group, 'v1', plural)
    if kind is None:
        return

    async def transform(old: Obj) -> Obj:
        return {**old, **{k: v for k, v in wanted.items() if k != 'metadata'}}

    try:
        await server.registry.update(kind, 'default', wanted['metadata']['name'], transform, Write(SYSTEM))
    except NotFound:
        await ensure(server, group, plural, 'default', wanted)
