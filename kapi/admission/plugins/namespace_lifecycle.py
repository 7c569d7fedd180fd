"""NamespaceLifecycle: nothing is created in a namespace that is missing or going; some namespaces never go."""

from __future__ import annotations

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.errors import Forbidden, NotFound
from kapi.storage.cache import Cache
from kapi.storage.entries import Entry
from kcore.meta.gvk import NAMESPACES

IMMORTAL = frozenset({'default', 'kube-system', 'kube-public'})


class NamespaceLifecycle(Plugin):
    name = 'NamespaceLifecycle'
    operations: frozenset[Operation] = frozenset({'CREATE', 'DELETE'})

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def mutate(self, a: Attributes) -> None:
        """Upstream decides before other plugins change anything, so this does too."""
        if a.operation == 'DELETE':
            if a.is_for('', 'namespaces') and a.name in IMMORTAL:
                raise Forbidden.on(NAMESPACES, a.name, 'this namespace may not be deleted')
            return
        if not a.namespace or not a.kind.resource.namespaced:
            return
        namespace = await self._find(a.namespace)
        if namespace is None:
            raise NotFound.of(NAMESPACES, a.namespace)
        meta = namespace.obj['metadata']
        if (namespace.obj.get('status') or {}).get('phase') == 'Terminating' or meta.get('deletionTimestamp'):
            why = f'unable to create new content in namespace {a.namespace} because it is being terminated'
            cause = {
                'reason': 'NamespaceTerminating',
                'message': f'namespace {a.namespace} is being terminated',
                'field': 'metadata.namespace',
            }
            raise Forbidden.on(a.kind.resource, a.name, why, causes=[cause])

    async def _find(self, name: str) -> Entry | None:
        key = f'/registry/namespaces/{name}'
        found = self._cache.peek(key)
        if found is None:
            # Perhaps made through another API server a moment ago.
            await self._cache.fresh()
            found = self._cache.peek(key)
        return found
