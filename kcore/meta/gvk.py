"""Group, version, kind, resource: how Kubernetes names a type, and the built-in ones that components ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """One REST resource: enough to build its URLs and to fill in apiVersion and kind."""

    group: str
    """Empty for the core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f'{self.group}/{self.version}' if self.group else self.version

    @property
    def qualified(self) -> str:
        """`deployments.apps`, `pods`: the form that error messages use."""
        return f'{self.plural}.{self.group}' if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path; without `namespace` a namespaced resource is addressed across all namespaces."""
        parts = ['/apis', self.group, self.version] if self.group else ['/api', self.version]
        if self.namespaced and namespace:
            parts += ['namespaces', namespace]
        parts.append(self.plural)
        parts += [p for p in (name, subresource) if p]
        return '/'.join(parts)

    def __str__(self) -> str:
        return self.qualified


NAMESPACES = Resource('', 'v1', 'namespaces', 'Namespace', namespaced=False)
NODES = Resource('', 'v1', 'nodes', 'Node', namespaced=False)
PODS = Resource('', 'v1', 'pods', 'Pod')
EVENTS = Resource('', 'v1', 'events', 'Event')
CONFIGMAPS = Resource('', 'v1', 'configmaps', 'ConfigMap')
SECRETS = Resource('', 'v1', 'secrets', 'Secret')
SERVICES = Resource('', 'v1', 'services', 'Service')
SERVICEACCOUNTS = Resource('', 'v1', 'serviceaccounts', 'ServiceAccount')
ENDPOINTS = Resource('', 'v1', 'endpoints', 'Endpoints')
ENDPOINTSLICES = Resource('discovery.k8s.io', 'v1', 'endpointslices', 'EndpointSlice')
PERSISTENTVOLUMES = Resource('', 'v1', 'persistentvolumes', 'PersistentVolume', namespaced=False)
PERSISTENTVOLUMECLAIMS = Resource('', 'v1', 'persistentvolumeclaims', 'PersistentVolumeClaim')
LEASES = Resource('coordination.k8s.io', 'v1', 'leases', 'Lease')
RUNTIMECLASSES = Resource('node.k8s.io', 'v1', 'runtimeclasses', 'RuntimeClass', namespaced=False)
DEPLOYMENTS = Resource('apps', 'v1', 'deployments', 'Deployment')
REPLICASETS = Resource('apps', 'v1', 'replicasets', 'ReplicaSet')
