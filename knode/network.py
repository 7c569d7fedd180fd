"""How pods reach Services from this node: the proxy, with the watches that it follows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry

from kclient.api import Client
from kclient.events import EventRecorder
from kclient.informer import Informer, strip_managed_fields
from kcore.env import Env
from kcore.meta.gvk import ENDPOINTSLICES
from kcore.meta.objects import labels_of
from knode.addresses import AddressPool
from knode.config import NodeConfig
from knode.node import NodeKeeper
from knode.proxy.plan import ZONE_LABEL, Facts
from knode.proxy.proxier import SERVICE_INDEX, Proxier, service_of

POD_PREFIX = 24
"""Length of a node's podCIDR while it has none yet."""


class ServiceNetwork:
    def __init__(
        self, config: NodeConfig, env: Env, client: Client, *, keeper: NodeKeeper, pool: AddressPool,
        services: Informer, registry: CollectorRegistry,
    ) -> None:  # fmt: skip
        self._name, self._keeper = config.name, keeper
        self._slices = Informer(
            client, ENDPOINTSLICES, indexers={SERVICE_INDEX: service_of}, transform=strip_managed_fields
        )
        self._events = EventRecorder(client, env, 'kube-proxy', config.name)
        self._proxier = Proxier(
            env, services, self._slices, self._facts, lambda: pool.prefix or POD_PREFIX,
            events=self._events, registry=registry,
        )  # fmt: skip
        keeper.informer.on_change(lambda old, new: self._proxier.look())

    def tasks(self) -> dict[str, Callable[[], Awaitable[object]]]:
        return {
            'watch endpoint slices': self._slices.run,
            'service proxy': self._proxier.run,
            'service events': self._events.run,
        }

    def _facts(self) -> Facts:
        zone = labels_of(self._keeper.known_node() or {}).get(ZONE_LABEL, '')
        return Facts(self._name, self._keeper.address, zone)
