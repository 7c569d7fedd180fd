"""ServiceAccount: a pod runs as `default` unless it names another account, which must exist.

Differs from upstream: a missing `default` account is no reason to refuse, because it is made a moment after its
namespace; see docs/divergences.md.
"""

from __future__ import annotations

from kapi.admission.chain import Attributes, Operation
from kapi.errors import Forbidden
from kapi.storage.cache import Cache
from kcore.meta.gvk import PODS

DEFAULT = 'default'


class ServiceAccount:
    name = 'ServiceAccount'
    operations: frozenset[Operation] = frozenset({'CREATE'})

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def mutate(self, a: Attributes) -> None:
        if not a.is_for('', 'pods') or a.obj is None:
            return
        spec = a.obj.setdefault('spec', {})
        account = spec.get('serviceAccountName') or spec.get('serviceAccount') or DEFAULT
        spec['serviceAccountName'] = spec['serviceAccount'] = account

    async def validate(self, a: Attributes) -> None:
        if not a.is_for('', 'pods') or a.obj is None:
            return
        account = a.obj['spec']['serviceAccountName']
        key = f'/registry/serviceaccounts/{a.namespace}/{account}'
        if account == DEFAULT or self._cache.peek(key) is not None:
            return
        await self._cache.fresh()
        if self._cache.peek(key) is None:
            why = f'error looking up service account {a.namespace}/{account}: serviceaccount "{account}" not found'
            raise Forbidden.on(PODS, a.name, why)
