"""Priority: the class named by a pod becomes its number; no class means the global default, or zero."""

from __future__ import annotations

from typing import Any

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.errors import Forbidden
from kapi.storage.cache import Cache
from kcore.meta.gvk import PODS

Obj = dict[str, Any]

PREFIX = '/registry/scheduling.k8s.io/priorityclasses/'
SYSTEM_CLASSES = {'system-cluster-critical': 2_000_000_000, 'system-node-critical': 2_000_001_000}


class Priority(Plugin):
    name = 'Priority'
    operations: frozenset[Operation] = frozenset({'CREATE'})
    about = frozenset({('', 'pods')})

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def mutate(self, a: Attributes) -> None:
        if not a.is_for('', 'pods') or a.obj is None:
            return
        spec = a.obj.setdefault('spec', {})
        name = spec.get('priorityClassName') or ''
        found = await self._class(name) if name else self._default()
        if found is None and name:
            if name not in SYSTEM_CLASSES:
                raise Forbidden.on(PODS, a.name, f'no PriorityClass with name {name} was found')
            found = {'metadata': {'name': name}, 'value': SYSTEM_CLASSES[name]}
        value = found['value'] if found else 0
        if spec.get('priority') is not None and spec['priority'] != value:
            why = (
                'the integer value of priority must not be provided in pod spec; priority admission controller '
                f'computed {value} from the given PriorityClass name'
            )
            raise Forbidden.on(PODS, a.name, why)
        spec['priority'] = value
        if found:
            spec['priorityClassName'] = found['metadata']['name']
        spec.setdefault('preemptionPolicy', (found or {}).get('preemptionPolicy') or 'PreemptLowerPriority')

    async def _class(self, name: str) -> Obj | None:
        entry = self._cache.peek(PREFIX + name)
        if entry is None:
            await self._cache.fresh()
            entry = self._cache.peek(PREFIX + name)
        return entry.obj if entry is not None else None

    def _default(self) -> Obj | None:
        classes = (e.obj for e in self._cache.resource(PREFIX).select(PREFIX))
        found = [c for c in classes if c.get('globalDefault')]
        return min(found, key=lambda c: c['value']) if found else None
