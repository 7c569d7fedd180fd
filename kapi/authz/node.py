"""The Node authorizer: an agent reads what its own pods name, and nothing else of the kind.

Secrets, ConfigMaps, claims and volumes are open to a node only while a pod bound to it refers to them; a graph of these
references is kept up to date from the watch cache's history, so a decision is a look-up. Pods may be listed only by
`spec.nodeName` of the node itself. What nodes may do beside that is a table. Writing is further limited by the
NodeRestriction plugin. Source: plugin/pkg/auth/authorizer/node/{node_authorizer,graph}.go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from kapi.authz.masters import ALLOW
from kapi.authz.union import NO_OPINION, Attributes, Decision
from kapi.storage.cache import Cache
from kcore.meta.podrefs import named_in
from kcore.meta.selectors import SelectorError, parse_field_selector

Obj = dict[str, Any]
Ref = tuple[str, str, str, str]
"""(node, resource, namespace, name): a pod of the node refers to it."""
PODS = '/registry/pods/'
GROUP, PREFIX = 'system:nodes', 'system:node:'
LEASE_NAMESPACE = 'kube-node-lease'
READ = frozenset({'get', 'list', 'watch'})
WRITE = frozenset({'create', 'update', 'patch', 'delete'})
_CHANGE = frozenset({'create', 'update', 'patch'})
RULES: dict[tuple[str, str], frozenset[str]] = {
    ('', 'services'): READ,
    ('', 'endpoints'): READ,
    ('', 'namespaces'): READ,
    ('', 'nodes'): READ | WRITE,
    ('', 'nodes/status'): frozenset({'update', 'patch'}),
    ('', 'pods'): frozenset({'create', 'delete'}),
    ('', 'pods/status'): frozenset({'update', 'patch'}),
    ('', 'pods/eviction'): frozenset({'create'}),
    ('', 'events'): _CHANGE,
    ('events.k8s.io', 'events'): _CHANGE,
    ('discovery.k8s.io', 'endpointslices'): READ,
    ('networking.k8s.io', 'networkpolicies'): READ,
    ('node.k8s.io', 'runtimeclasses'): READ,
    ('storage.k8s.io', 'storageclasses'): READ,
    ('storage.k8s.io', 'csidrivers'): READ,
    ('certificates.k8s.io', 'certificatesigningrequests'): READ | {'create'},
    ('authentication.k8s.io', 'tokenreviews'): frozenset({'create'}),
    ('authorization.k8s.io', 'subjectaccessreviews'): frozenset({'create'}),
}
"""(group, resource) → verbs that every node has; what is written is the plugin's matter."""
GRAPH = frozenset({'secrets', 'configmaps', 'persistentvolumeclaims', 'persistentvolumes', 'serviceaccounts'})


def node_of(groups: tuple[str, ...], user: str) -> str:
    """The node whose agent this is, empty for everybody else."""
    return user.removeprefix(PREFIX) if GROUP in groups and user.startswith(PREFIX) else ''


class NodeGraph:
    """Which node's pods refer to what, kept current from the cache."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._seen = -1
        self._pods: dict[str, tuple[Ref, ...]] = {}
        self._refs: Counter[Ref] = Counter()

    def refers(self, ref: Ref) -> bool:
        self._catch_up()
        return self._refs[ref] > 0

    def _catch_up(self) -> None:
        pods = self._cache.resource(PODS)
        if self._seen < pods.floor:
            self._pods.clear()
            self._refs.clear()
            for entry in pods.select(PODS):
                self._put(entry.key, entry.obj)
        elif self._seen < self._cache.revision:
            for event in pods.since(self._seen, PODS):
                self._put(event.entry.key, None if event.type == 'DELETED' else event.entry.obj)
        self._seen = max(self._cache.revision, pods.floor)

    def _put(self, key: str, pod: Obj | None) -> None:
        new = tuple(references(pod)) if pod is not None else ()
        old = self._pods.get(key, ())
        if new == old:
            return
        self._refs.subtract(old)
        self._refs.update(new)
        for ref in old:
            if not self._refs[ref]:
                del self._refs[ref]
        if new:
            self._pods[key] = new
        else:
            self._pods.pop(key, None)


def references(pod: Obj) -> Iterator[Ref]:
    """What a bound pod refers to. Mirror pods refer to nothing: the agent itself has made them up."""
    spec, meta = pod.get('spec') or {}, pod['metadata']
    node, namespace = spec.get('nodeName'), meta.get('namespace', '')
    if not node or 'kubernetes.io/config.mirror' in (meta.get('annotations') or {}):
        return
    for resource, name in named_in(spec, meta['name']):
        yield node, resource, namespace, name
    yield node, 'pods', namespace, meta['name']
    if account := spec.get('serviceAccountName'):
        yield node, 'serviceaccounts', namespace, account


class NodeAuthorizer:
    name = 'node'

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._graph = NodeGraph(cache)

    async def decide(self, a: Attributes) -> Decision:
        node = node_of(a.user.groups, a.user.name)
        if not node or a.path:
            return NO_OPINION
        if a.group == '' and (a.resource in GRAPH or (a.resource == 'pods' and a.verb in READ)):
            return await self._related(a, node)
        if (a.group, a.resource) == ('coordination.k8s.io', 'leases'):
            own = a.namespace == LEASE_NAMESPACE and (a.name == node or (a.verb == 'create' and not a.name))
            return ALLOW if own and a.verb in {'get', *WRITE} else _no(f'can only access node lease "{node}"')
        if (a.group, a.resource) == ('storage.k8s.io', 'csinodes'):
            own = a.name == node or (a.verb == 'create' and not a.name)
            return ALLOW if own and a.verb in {'get', *WRITE} else _no(f'can only access CSINode "{node}"')
        verbs = RULES.get((a.group, a.full_resource), frozenset())
        return ALLOW if a.verb in verbs else NO_OPINION

    async def _related(self, a: Attributes, node: str) -> Decision:
        if a.resource == 'serviceaccounts':
            wanted = a.full_resource == 'serviceaccounts/token' and a.verb == 'create'
            if not wanted and not (a.verb == 'get' and not a.subresource):
                return _no('can only create tokens for individual service accounts')
        elif a.subresource or a.verb not in READ:
            return NO_OPINION
        if a.resource == 'pods' and not a.name:
            chosen = _chosen_node(a.field_selector)
            return ALLOW if chosen == node else _no('can only list/watch pods with spec.nodeName field selector')
        if not a.name:
            return _no('No Object name found')
        if await self._reaches(node, a.resource, a.namespace, a.name):
            return ALLOW
        return _no(f"no relationship found between node '{node}' and this object")

    async def _reaches(self, node: str, resource: str, namespace: str, name: str) -> bool:
        for attempt in (1, 2):
            if self._has(node, resource, namespace, name):
                return True
            if attempt == 1:
                await self._cache.fresh()  # bound a moment ago, perhaps through another API server
        return False

    def _has(self, node: str, resource: str, namespace: str, name: str) -> bool:
        if resource != 'persistentvolumes':
            return self._graph.refers((node, resource, namespace, name))
        entry = self._cache.peek(f'/registry/persistentvolumes/{name}')
        claim = ((entry.obj.get('spec') or {}).get('claimRef') if entry is not None else None) or {}
        ref = (node, 'persistentvolumeclaims', str(claim.get('namespace')), str(claim.get('name')))
        return self._graph.refers(ref)


def _no(why: str) -> Decision:
    """Silence with a reason: another authorizer may still allow it."""
    return Decision('no opinion', why)


def _chosen_node(selector: str) -> str | None:
    try:
        return parse_field_selector(selector).exact('spec.nodeName')
    except SelectorError:
        return None
