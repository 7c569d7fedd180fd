"""How pods reach Services from this node, by address (the proxy) and by name (the name server), on the same watches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from kclient.api import Client
from kclient.events import EventRecorder
from kclient.informer import Informer, strip_managed_fields
from kcore.config import split_address
from kcore.env import Env
from kcore.meta.clusterdns import ADDRESS_ANNOTATION, DOMAIN, PORT
from kcore.meta.gvk import ENDPOINTSLICES, NAMESPACES
from kcore.meta.objects import labels_of
from knode.addresses import AddressPool
from knode.config import NodeConfig
from knode.dns.forward import Forwarder
from knode.dns.server import DnsServer
from knode.dns.zone import Sources, Zone, cluster_ip, named_addresses
from knode.node import NodeKeeper
from knode.proxy.plan import ZONE_LABEL, Facts
from knode.proxy.ports import reason
from knode.proxy.proxier import SERVICE_INDEX, Proxier, service_of
from knode.proxy.sockets import may_listen
from knode.volumes import etc

log = structlog.get_logger('knode.network')

Tasks = dict[str, Callable[[], Awaitable[object]]]
POD_PREFIX = 24
"""Length of a node's podCIDR while it has none yet."""
ADDRESS_INDEX, NAMED_INDEX = 'cluster-ip', 'named-address'
RESOLVER = Path('/etc/resolv.conf')


class ServiceNetwork:
    def __init__(
        self, config: NodeConfig, env: Env, client: Client, *, keeper: NodeKeeper, pool: AddressPool,
        services: Informer, pods: Informer, registry: CollectorRegistry,
    ) -> None:  # fmt: skip
        self._config, self._env, self._keeper, self._services = config, env, keeper, services
        indexers = {SERVICE_INDEX: service_of, NAMED_INDEX: named_addresses}
        self._slices = Informer(client, ENDPOINTSLICES, indexers=indexers, transform=strip_managed_fields)
        self._events = EventRecorder(client, env, 'kube-proxy', config.name)
        self._proxier = Proxier(
            env, self._facts, lambda: pool.prefix or POD_PREFIX, services=services, slices=self._slices, pods=pods,
            events=self._events, registry=registry,
        )  # fmt: skip
        keeper.informer.on_change(lambda old, new: self._proxier.look())
        self._tasks: Tasks = {
            'watch endpoint slices': self._slices.run,
            'service proxy': self._proxier.run,
            'service events': self._events.run,
        }
        keeper.annotations[ADDRESS_ANNOTATION] = config.dns_listen
        if config.dns_listen:
            self._tasks |= self._name_server(client, registry, *split_address(config.dns_listen))

    def tasks(self) -> Tasks:
        return self._tasks

    def name_server(self) -> tuple[str, str]:
        """(address for pods' resolv.conf, which has no room for a port; HOST:PORT), empty where there is none."""
        address = self._config.cluster_dns
        if not address:
            return '', ''
        try:
            may_listen((address, PORT))
        except OSError as e:
            log.warning('pods ask the name servers of the machine', err=f'{address}:{PORT}: {reason(e)}')
            return '', self._config.dns_listen or ''
        return address, f'{address}:{PORT}'

    def _name_server(self, client: Client, registry: CollectorRegistry, host: str, port: int) -> Tasks:
        namespaces = Informer(client, NAMESPACES, metadata_only=True, transform=strip_managed_fields)
        services, slices = self._services.store, self._slices.store
        services.add_indexer(ADDRESS_INDEX, cluster_ip)
        sources = Sources(
            service=services.get,
            service_at=lambda ip: services.by_index(ADDRESS_INDEX, ip),
            slices=lambda key: slices.by_index(SERVICE_INDEX, key),
            slices_at=lambda ip: slices.by_index(NAMED_INDEX, ip),
            namespace=lambda name: namespaces.store.get(name) is not None,
        )
        zone = Zone(sources, DOMAIN, self._config.cluster_dns or host)
        server = DnsServer(self._env, zone, Forwarder(self._servers_of_machine), registry)

        async def serve() -> None:
            """Nothing is denied before it could be known."""
            for informer in (self._services, self._slices, namespaces):
                await informer.synced()
            await server.run(host, port)

        return {'watch namespaces': namespaces.run, 'name server': serve}

    def _servers_of_machine(self) -> list[str]:
        disk = self._env.disk
        text = disk.read(RESOLVER).decode(errors='replace') if disk.exists(RESOLVER) else ''
        return [s for s in etc.parse(text)[0] if s != self._config.cluster_dns]

    def _facts(self) -> Facts:
        zone = labels_of(self._keeper.known_node() or {}).get(ZONE_LABEL, '')
        return Facts(self._config.name, self._keeper.address, zone)
