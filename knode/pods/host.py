"""What the pod workers of one node share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kclient.events import EventRecorder
from kcore.env import Env
from kcore.meta.gvk import CONFIGMAPS, RUNTIMECLASSES, SECRETS, Resource
from kcore.turns import Turns
from knode.addresses import AddressPool
from knode.errors import ShimError
from knode.images.store import ImageStore
from knode.pods.checkpoint import Checkpoints
from knode.pods.environment import Facts, Sources
from knode.pods.metrics import KubeletMetrics
from knode.pods.model import Verdict
from knode.probes.metrics import ProbeMetrics
from knode.runtime.driver import RuntimeDriver
from knode.runtime.registry import DEFAULT
from knode.volumes.memory import Memory
from knode.watches import Ref, Tell

Obj = Mapping[str, Any]

STARTS_AT_ONCE, START_PATIENCE_S = 8, 0.5
"""Of a hundred pods that come at once the first then run soon; one that waits for an image or the API stops nobody."""


class Objects(Protocol):
    """Reads of the API that a pod's start needs."""

    async def read(self, resource: Resource, name: str, namespace: str) -> Obj | None:
        """None: there is none. Raises kclient errors when it cannot be known."""

    def follow(self, refs: frozenset[Ref], tell: Tell) -> None:
        """Have `tell` called when one of these changes, and no longer for what it followed before."""

    def tells(self, refs: Iterable[Ref]) -> bool:
        """Whether a change of each of them is told, so that nobody has to look."""

    async def token(self, pod: Obj, audience: str, expires_s: int) -> str:
        """A token of the pod's service account, bound to the pod."""

    def services(self, namespace: str) -> Iterable[Obj]: ...


class StatusSink(Protocol):
    """Where workers leave what the API should say; sending and retrying is not their business."""

    def push(self, pod: Obj, status: Mapping[str, Any], *, finished: bool) -> None: ...


@dataclass(slots=True)
class Host:
    """One node's services to its pods."""

    env: Env
    node_name: str
    host_ip: str
    drivers: Mapping[str, RuntimeDriver]
    addresses: AddressPool
    checkpoints: Checkpoints
    objects: Objects
    statuses: StatusSink
    events: EventRecorder
    images: ImageStore
    allocatable: Mapping[str, str] = field(default_factory=dict)
    node: Callable[[], Obj | None] = lambda: None
    """The Node object, which people add labels and taints to; None while it is not known."""
    refusal: Callable[[Obj], Verdict | None] = lambda pod: None
    """Why the node in its present condition does not take a pod."""
    freed: Callable[[], None] = lambda: None
    """Called when a pod has ended, so that what it held can be given to another."""
    kubelet_port: int = 0
    metrics: KubeletMetrics = field(default_factory=KubeletMetrics)
    probe_metrics: ProbeMetrics = field(default_factory=ProbeMetrics)
    sync_frequency_s: float = 60.0
    """How long a running pod may see an old token, or an old ConfigMap or Secret that could not be watched."""
    pod_pids: int = 0
    """Most processes of one pod, where the kernel can count them; 0: any number."""
    memory: Memory = field(default_factory=Memory)
    cluster_dns: str = ''
    """Where pods ask for names, at port 53; empty: they ask the machine's name servers."""
    name_server: str = ''
    """HOST:PORT of a name server of the cluster, for pods whose resolv.conf cannot name it; empty: there is none."""
    turns: Turns = field(default_factory=lambda: Turns(STARTS_AT_ONCE, START_PATIENCE_S))

    async def driver_for(self, pod: Obj) -> RuntimeDriver:
        """The one that the pod's RuntimeClass names as its handler. Raises ShimError in the words of other runtimes."""
        name = pod['spec'].get('runtimeClassName')
        if pod['spec'].get('hostUsers') is False:
            raise ShimError('user namespaces are not supported by this node: hostUsers must not be false')
        if not name:
            return self.default_driver
        found = await self.objects.read(RUNTIMECLASSES, name, '')
        if found is None:
            raise ShimError(f'runtimeclass.node.k8s.io "{name}" not found')
        driver = self.drivers.get(found['handler'])
        if driver is None:
            raise ShimError(f'failed to get sandbox runtime: no runtime for "{found["handler"]}" is configured')
        return driver

    @property
    def default_driver(self) -> RuntimeDriver:
        return self.drivers[DEFAULT]

    def facts(self, pod_ip: str) -> Facts:
        return Facts(pod_ip, self.host_ip, self.node_name, self.allocatable)

    async def sources(self, pod: Obj, config_maps: Iterable[str], secrets: Iterable[str]) -> Sources:
        """Fetch what an environment refers to."""
        namespace = pod['metadata']['namespace']
        maps = {n: await self.objects.read(CONFIGMAPS, n, namespace) for n in sorted(config_maps)}
        found = {n: await self.objects.read(SECRETS, n, namespace) for n in sorted(secrets)}
        return Sources(maps, found, tuple(self.objects.services(namespace)))

    def emit(
        self, pod: Obj, kind: str, reason: str, message: str, *, container: str = '', where: str = 'containers'
    ) -> None:
        path = f'spec.{where}{{{container}}}' if container else ''
        self.events.event(dict(pod), kind, reason, message, field_path=path)  # type: ignore[arg-type]
