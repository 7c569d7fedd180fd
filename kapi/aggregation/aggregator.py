"""Which groups and versions another server answers for, as the watch cache's APIServices say.

Source: kube-aggregator pkg/apiserver/{apiserver,handler_proxy,handler_apis}.go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kapi.aggregation.endpoints import Backend, Transport
from kapi.storage.cache import Cache
from kcore.meta.objects import condition_is

Obj = dict[str, Any]

PREFIX = '/registry/apiregistration.k8s.io/apiservices/'


@dataclass(slots=True)
class Remote:
    """One group and version that is served elsewhere."""

    name: str
    group: str
    version: str
    backend: Backend
    available: bool
    group_priority: int = 0
    version_priority: int = 0
    resources: list[Obj] = field(default_factory=list)
    """As aggregated discovery lists them; the last that were heard of."""
    openapi_url: str = ''
    """`serverRelativeURL` of its OpenAPI v3 document, if it has one."""


def backend_of(spec: Obj) -> Backend | None:
    """Where an APIService's server is; None for a local one."""
    service = spec.get('service')
    if not service:
        return None
    return Backend(
        namespace=service.get('namespace') or '', service=service.get('name') or '', port=service.get('port') or 443,
        ca_bundle=spec.get('caBundle') or '', insecure=bool(spec.get('insecureSkipTLSVerify')),
    )  # fmt: skip


class Aggregator:
    """Remote versions by group and version; `generation` grows when what clients see of them changes."""

    def __init__(self, cache: Cache, transport: Transport) -> None:
        self._cache = cache
        self.transport = transport
        self.generation = 0
        self._changes = -1
        self._remotes: dict[tuple[str, str], Remote] = {}

    def sync(self) -> None:
        """Bring the table up to date; one comparison when nothing changed."""
        resource = self._cache.resource(PREFIX)
        if resource.changes == self._changes:
            return
        self._changes = resource.changes
        found: dict[tuple[str, str], Remote] = {}
        for entry in resource.entries.values():
            spec = entry.obj.get('spec') or {}
            backend = backend_of(spec)
            if backend is None:
                continue
            key = (spec.get('group') or '', spec.get('version') or '')
            remote = Remote(
                entry.obj['metadata']['name'], *key, backend, condition_is(entry.obj, 'Available'),
                int(spec.get('groupPriorityMinimum') or 0), int(spec.get('versionPriority') or 0),
            )  # fmt: skip
            before = self._remotes.get(key)
            if before is not None and before.backend == backend:
                remote.resources, remote.openapi_url = before.resources, before.openapi_url
            found[key] = remote
        if found != self._remotes:
            self._remotes = found
            self.generation += 1

    def learned(self, group: str, version: str, resources: list[Obj], openapi_url: str) -> None:
        """What a remote server says of itself."""
        remote = self._remotes.get((group, version))
        if remote is not None and (remote.resources, remote.openapi_url) != (resources, openapi_url):
            remote.resources, remote.openapi_url = resources, openapi_url
            self.generation += 1

    def remotes(self) -> list[Remote]:
        """By priority: higher groups first, within a group the better version first."""
        self.sync()
        return sorted(
            self._remotes.values(), key=lambda r: (-r.group_priority, r.group, -r.version_priority, r.version)
        )

    def remote_of(self, path: str) -> Remote | None:
        """Who answers for a URL path; None: we do."""
        self.sync()
        if not self._remotes:
            return None
        parts = path.strip('/').split('/')
        if parts[:2] == ['openapi', 'v3']:
            parts = parts[2:]
        if len(parts) < 3 or parts[0] != 'apis':
            return None
        return self._remotes.get((parts[1], parts[2]))
