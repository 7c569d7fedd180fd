"""NodeRestriction: a node agent writes its own Node, its own Lease, and pods that are bound to it; nothing else's.

Reading is limited by the Node authorizer (`kapi/authz/node.py`). Source: plugin/pkg/admission/noderestriction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.authz import union
from kapi.authz.node import node_of
from kapi.errors import Forbidden
from kapi.storage.cache import Cache
from kcore.meta.gvk import PODS
from kcore.meta.objects import get_path
from kcore.meta.podrefs import named_in

Obj = dict[str, Any]
RESTRICTED = 'node-restriction.kubernetes.io'
KUBELET_LABELS = frozenset({
    'kubernetes.io/hostname', 'kubernetes.io/arch', 'kubernetes.io/os', 'beta.kubernetes.io/instance-type',
    'node.kubernetes.io/instance-type', 'failure-domain.beta.kubernetes.io/region',
    'failure-domain.beta.kubernetes.io/zone', 'topology.kubernetes.io/region', 'topology.kubernetes.io/zone',
    'beta.kubernetes.io/arch', 'beta.kubernetes.io/os',
})  # fmt: skip
AUDIENCE_VERB = 'request-serviceaccounts-token-audience'
KUBELET_PREFIXES = ('kubelet.kubernetes.io', 'node.kubernetes.io')


class NodeRestriction(Plugin):
    name = 'NodeRestriction'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE', 'DELETE'})

    def __init__(self, cache: Cache, authz: union.Union) -> None:
        self._cache = cache
        self._authz = authz

    async def validate(self, a: Attributes) -> None:
        node = node_of(a.user.groups, a.user.name)
        if not node:
            return
        r = a.kind.resource
        match (r.group, r.plural):
            case ('', 'nodes'):
                self._check_node(a, node)
            case ('', 'pods') if a.subresource == 'eviction':
                self._check_eviction(a, node)
            case ('', 'pods'):
                await self._check_pod(a, node)
            case ('', 'serviceaccounts') if a.subresource == 'token':
                await self._check_token(a, node)
            case ('coordination.k8s.io', 'leases') if a.namespace != 'kube-node-lease' or a.name != node:
                raise self._refusal(a, f'can only access node lease with the same name as the requesting node "{node}"')
            case ('storage.k8s.io', 'csinodes') if a.name != node:
                raise self._refusal(a, f'can only access CSINode with the same name as the requesting node "{node}"')

    def _check_node(self, a: Attributes, node: str) -> None:
        if a.name != node:
            raise self._refusal(a, f'node "{node}" is not allowed to modify node "{a.name}"')
        new, old = a.obj or {}, a.old or {}
        if a.operation == 'DELETE':
            return
        before, after = _labels(old), _labels(new)
        changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
        bad = sorted(k for k in changed if _forbidden_label(k))
        if bad:
            raise self._refusal(a, f'is not allowed to modify labels: {", ".join(bad)}')
        if a.operation == 'CREATE':
            return
        if (new.get('spec') or {}).get('taints') != (old.get('spec') or {}).get('taints'):
            raise self._refusal(a, f'node "{node}" is not allowed to modify taints')
        if (new.get('spec') or {}).get('configSource') != (old.get('spec') or {}).get('configSource'):
            raise self._refusal(a, f'node "{node}" is not allowed to update configSource')
        if new['metadata'].get('ownerReferences') != old['metadata'].get('ownerReferences'):
            raise self._refusal(a, f'node "{node}" is not allowed to modify ownerReferences')

    async def _check_pod(self, a: Attributes, node: str) -> None:
        if a.operation == 'CREATE':
            await self._check_mirror(a, node)
            return
        if ((a.old or {}).get('spec') or {}).get('nodeName') != node:
            what = 'delete' if a.operation == 'DELETE' else 'update'
            raise self._refusal(a, f'node "{node}" can only {what} pods with spec.nodeName set to itself')
        if a.operation == 'UPDATE':
            if a.subresource != 'status':
                raise self._refusal(a, f'node "{node}" may only update the status of pods')
            if _labels(a.obj or {}) != _labels(a.old or {}):
                raise self._refusal(a, f'node "{node}" cannot update labels through pod status')

    async def _check_mirror(self, a: Attributes, node: str) -> None:
        """A pod made by a node stands for one that runs there already: it is the node's own and names nothing else."""
        spec, meta = (a.obj or {}).get('spec') or {}, (a.obj or {}).get('metadata', {})
        if 'kubernetes.io/config.mirror' not in (meta.get('annotations') or {}) or spec.get('nodeName') != node:
            raise self._refusal(a, f'node "{node}" can only create mirror pods bound to itself')
        owners = meta.get('ownerReferences') or ()
        only = f'node "{node}" can only create pods with'
        if len(owners) > 1:
            raise self._refusal(a, f'{only} a single owner reference set to itself')
        owner = owners[0] if owners else {}
        if (owner.get('apiVersion'), owner.get('kind'), owner.get('name')) != ('v1', 'Node', node):
            raise self._refusal(a, f'{only} an owner reference set to itself')
        if owner.get('controller') is not True:
            raise self._refusal(a, f'{only} a controller owner reference set to itself')
        if owner.get('blockOwnerDeletion'):
            raise self._refusal(a, f'node "{node}" must not set blockOwnerDeletion on an owner reference')
        entry = self._cache.peek(f'/registry/nodes/{node}')
        if entry is None or entry.obj['metadata']['uid'] != owner.get('uid'):
            await self._cache.fresh()  # made a moment ago, perhaps through another API server
            entry = self._cache.peek(f'/registry/nodes/{node}')
        uid = entry.obj['metadata']['uid'] if entry is not None else ''
        if owner.get('uid') != uid:
            raise self._refusal(a, f'node {node} UID mismatch: expected {uid} got {owner.get("uid")}')
        named = sorted({resource for resource, _ in named_in(spec, a.name)})
        if spec.get('serviceAccountName'):
            named.insert(0, 'a service account')
        if named:
            raise self._refusal(a, f'node "{node}" can not create pods that reference {named[0]}')

    def _check_eviction(self, a: Attributes, node: str) -> None:
        entry = self._cache.peek(f'/registry/pods/{a.namespace}/{a.name}')
        if entry is not None and (entry.obj.get('spec') or {}).get('nodeName') != node:
            raise self._refusal(a, f'node {node} can only evict pods with spec.nodeName set to itself')

    async def _check_token(self, a: Attributes, node: str) -> None:
        """A node gets tokens only for its own pods, bound to them."""
        ref = ((a.obj or {}).get('spec') or {}).get('boundObjectRef') or {}
        if (ref.get('apiVersion'), ref.get('kind')) != ('v1', 'Pod'):
            raise self._refusal(a, 'node requested token not bound to a pod')
        if not ref.get('uid'):
            raise self._refusal(a, 'node requested token with a pod binding without a uid')
        key = f'/registry/pods/{a.namespace}/{ref.get("name")}'
        entry = self._cache.peek(key)
        if entry is None:
            await self._cache.fresh()
            entry = self._cache.peek(key)
        pod = entry.obj if entry is not None else None
        if pod is None or pod['metadata']['uid'] != ref['uid']:
            raise self._refusal(a, f'the pod {a.namespace}/{ref.get("name")} with uid {ref["uid"]} is not there')
        if (pod.get('spec') or {}).get('nodeName') != node:
            why = 'node requested token bound to a pod scheduled on a different node'
            raise Forbidden.on(PODS, str(ref.get('name')), why)
        await self._check_audience(a, pod)

    async def _check_audience(self, a: Attributes, pod: Obj) -> None:
        """Those that the pod's volumes ask for, and what somebody has granted the node by RBAC."""
        audiences = ((a.obj or {}).get('spec') or {}).get('audiences') or ['']
        if len(audiences) > 1:
            raise self._refusal(a, 'node may only request 0 or 1 audiences')
        (audience,) = audiences
        if audience in self._audiences(pod):
            return
        question = union.Attributes(a.user, AUDIENCE_VERB, '', 'v1', audience, '', a.namespace, a.name)
        if (await self._authz.decide(question)).verdict != 'allow':
            why = f'{a.user.name} is not authorized to request tokens for this audience'
            raise self._refusal(a, f'audience "{audience}" not found in pod spec volume, {why}')

    def _audiences(self, pod: Obj) -> Iterator[str]:
        """For whom the pod's volumes want tokens; '' is the API server."""
        for volume in pod['spec'].get('volumes') or ():
            for source in (volume.get('projected') or {}).get('sources') or ():
                if 'serviceAccountToken' in source:
                    yield source['serviceAccountToken'].get('audience') or ''
            driver = (volume.get('csi') or {}).get('driver') or self._driver(pod, volume)
            entry = self._cache.peek(f'/registry/storage.k8s.io/csidrivers/{driver}') if driver else None
            for wanted in (entry.obj['spec'].get('tokenRequests') or ()) if entry is not None else ():
                yield wanted.get('audience') or ''

    def _driver(self, pod: Obj, volume: Obj) -> str:
        """The CSI driver behind a claim; '' when there is none."""
        meta = pod['metadata']
        claim = (volume.get('persistentVolumeClaim') or {}).get('claimName')
        if 'ephemeral' in volume:
            claim = f'{meta["name"]}-{volume["name"]}'
        bound = self._cache.peek(f'/registry/persistentvolumeclaims/{meta["namespace"]}/{claim}') if claim else None
        name = get_path(bound.obj, 'spec.volumeName') if bound is not None else None
        found = self._cache.peek(f'/registry/persistentvolumes/{name}') if name else None
        return str(get_path(found.obj, 'spec.csi.driver') or '') if found is not None else ''

    @staticmethod
    def _refusal(a: Attributes, why: str) -> Forbidden:
        return Forbidden.on(a.kind.resource, a.name, why)


def _labels(obj: Obj) -> Obj:
    return (obj.get('metadata') or {}).get('labels') or {}


def _forbidden_label(key: str) -> bool:
    """Labels by which workloads choose their nodes are not the node's own to set, but for a few it must know."""
    domain = key.partition('/')[0] if '/' in key else ''
    if domain == RESTRICTED or domain.endswith(f'.{RESTRICTED}'):
        return True
    ours = domain in {'kubernetes.io', 'k8s.io'} or domain.endswith(('.kubernetes.io', '.k8s.io'))
    if not ours or key in KUBELET_LABELS:
        return False
    return not any(domain == p or domain.endswith(f'.{p}') for p in KUBELET_PREFIXES)
