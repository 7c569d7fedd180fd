"""ResourceQuota: a namespace holds no more than its quotas allow, exactly, whatever happens at once.

The arithmetic is in `kcore/meta/quota.py`, the books are kept in `kapi/admission/quota`. Runs last, so that nothing
else can refuse after a place was taken. Source: plugin/pkg/admission/resourcequota.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import partial

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.admission.quota.ledger import QUOTAS, Change, Exceeded, Ledger
from kapi.errors import Forbidden
from kapi.registry.catalog import key_prefix
from kapi.storage.cache import Cache
from kcore.env import Env
from kcore.meta.quota import Amounts, Obj, in_scope, usage_of


class ResourceQuota(Plugin):
    name = 'ResourceQuota'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE'})

    def __init__(self, cache: Cache, env: Env) -> None:
        self._ledger = Ledger(cache, env)

    async def validate(self, a: Attributes) -> None:
        if not a.namespace or a.obj is None or (a.subresource and a.subresource != 'resize'):
            return
        quotas = self._ledger.quotas(a.namespace)
        if not quotas:
            return
        resource = a.kind.storage or a.kind.resource
        change = Change(resource, f'{key_prefix(resource)}{a.namespace}/{a.name}', _wanted(a))
        for quota in sorted(quotas, key=lambda q: str(q['metadata']['name'])):
            hard = (quota.get('spec') or {}).get('hard') or {}
            if not in_scope(quota, resource.qualified, a.obj):
                continue
            if a.operation == 'CREATE' and a.is_for('', 'pods'):
                _insist(a, quota['metadata']['name'], _missing(hard, a.obj.get('spec') or {}))
            if not any(name in hard and amount > 0 for name, amount in change.amounts.items()):
                continue
            key = f'{QUOTAS}{a.namespace}/{quota["metadata"]["name"]}'
            try:
                await self._ledger.reserve(key, change, dry_run=a.dry_run)
            except Exceeded as e:
                raise Forbidden.on(a.kind.resource, a.name, str(e)) from None
            if not a.dry_run:
                a.undo.append(partial(self._ledger.give_back, key, change.key))


def _wanted(a: Attributes) -> Amounts:
    """What the write adds to the namespace."""
    resource = a.kind.storage or a.kind.resource
    assert a.obj is not None
    new = usage_of(resource.qualified, a.obj)
    old = usage_of(resource.qualified, a.old) if a.old is not None else {}
    return {name: amount - old.get(name, Decimal(0)) for name, amount in new.items()}


def _insist(a: Attributes, quota: str, lacking: dict[str, list[str]]) -> None:
    if lacking:
        listed = '; '.join(f'{name} for: {",".join(sorted(who))}' for name, who in sorted(lacking.items()))
        raise Forbidden.on(a.kind.resource, a.name, f'failed quota: {quota}: must specify {listed}')


def _missing(hard: Mapping[str, str], spec: Obj) -> dict[str, list[str]]:
    """Compute resources that the quota limits and containers do not state: resource → container names."""
    found: dict[str, list[str]] = {}
    for name in hard:
        side, _, resource = name.rpartition('.')
        resource = resource if side else name
        if side not in {'', 'requests', 'limits'} or resource not in {'cpu', 'memory'}:
            continue
        for container in [*(spec.get('containers') or ()), *(spec.get('initContainers') or ())]:
            if resource not in ((container.get('resources') or {}).get(side or 'requests') or {}):
                found.setdefault(name, []).append(container.get('name', ''))
    return found
