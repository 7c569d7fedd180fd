"""NodeRestriction: a node agent writes its own Node, its own Lease, and pods that are bound to it; nothing else's."""

from __future__ import annotations

from kapi.admission.chain import Attributes, Operation
from kapi.errors import Forbidden

NODES_GROUP = 'system:nodes'
PREFIX = 'system:node:'


def node_of(a: Attributes) -> str | None:
    """The node whose agent asks, None for everybody else."""
    if NODES_GROUP not in a.user.groups or not a.user.name.startswith(PREFIX):
        return None
    return a.user.name.removeprefix(PREFIX)


class NodeRestriction:
    name = 'NodeRestriction'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE', 'DELETE'})

    async def mutate(self, a: Attributes) -> None:
        """Changes nothing."""

    async def validate(self, a: Attributes) -> None:
        node = node_of(a)
        if node is None:
            return
        r = a.kind.resource
        match (r.group, r.plural):
            case ('', 'nodes') if a.name != node:
                raise self._refusal(a, f'node "{node}" is not allowed to modify node "{a.name}"')
            case ('', 'pods'):
                self._check_pod(a, node)
            case ('coordination.k8s.io', 'leases') if a.namespace != 'kube-node-lease' or a.name != node:
                raise self._refusal(a, f'can only access node lease with the same name as the requesting node "{node}"')

    def _check_pod(self, a: Attributes, node: str) -> None:
        if a.operation == 'CREATE':
            mirror = 'kubernetes.io/config.mirror' in ((a.obj or {}).get('metadata', {}).get('annotations') or {})
            bound = ((a.obj or {}).get('spec') or {}).get('nodeName') == node
            if not mirror or not bound:
                raise self._refusal(a, f'node "{node}" can only create mirror pods bound to itself')
            return
        if ((a.old or {}).get('spec') or {}).get('nodeName') != node:
            what = 'delete' if a.operation == 'DELETE' else 'update'
            raise self._refusal(a, f'node "{node}" can only {what} pods with spec.nodeName set to itself')

    @staticmethod
    def _refusal(a: Attributes, why: str) -> Forbidden:
        return Forbidden.on(a.kind.resource, a.name, why)
