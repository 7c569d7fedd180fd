"""RuntimeClass: the class that a pod names must exist; its overhead and its scheduling rules become the pod's."""

from __future__ import annotations

from typing import Any

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.errors import Forbidden
from kapi.storage.cache import Cache
from kcore.meta.gvk import PODS

Obj = dict[str, Any]
CLASSES = '/registry/node.k8s.io/runtimeclasses/'


class RuntimeClass(Plugin):
    name = 'RuntimeClass'
    operations: frozenset[Operation] = frozenset({'CREATE'})
    about = frozenset({('', 'pods')})

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def mutate(self, a: Attributes) -> None:
        if not a.is_for('', 'pods') or a.obj is None:
            return
        spec = a.obj.setdefault('spec', {})
        name = spec.get('runtimeClassName')
        if not name:
            if spec.get('overhead'):
                raise Forbidden.on(
                    PODS, a.name, 'pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead'
                )
            return
        found = await self._find(name)
        if found is None:
            raise Forbidden.on(PODS, a.name, f'pod rejected: RuntimeClass "{name}" not found')
        self._overhead(a, spec, (found.get('overhead') or {}).get('podFixed'))
        self._schedule(a, spec, found.get('scheduling') or {})

    def _overhead(self, a: Attributes, spec: Obj, fixed: Obj | None) -> None:
        if spec.get('overhead') and spec['overhead'] != (fixed or {}):
            why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
            raise Forbidden.on(PODS, a.name, why)
        if fixed:
            spec['overhead'] = dict(fixed)

    def _schedule(self, a: Attributes, spec: Obj, scheduling: Obj) -> None:
        selector = spec.get('nodeSelector') or {}
        for key, value in (scheduling.get('nodeSelector') or {}).items():
            if selector.get(key, value) != value:
                at = f'nodeSelector[{key}]'
                why = f'pod rejected: conflict: runtimeClass.scheduling.{at} = {value}; pod.spec.{at} = {selector[key]}'
                raise Forbidden.on(PODS, a.name, why)
            spec.setdefault('nodeSelector', {})[key] = value
        for toleration in scheduling.get('tolerations') or ():
            if toleration not in (spec.get('tolerations') or ()):
                spec.setdefault('tolerations', []).append(dict(toleration))

    async def _find(self, name: str) -> Obj | None:
        entry = self._cache.peek(CLASSES + name)
        if entry is None:
            await self._cache.fresh()
            entry = self._cache.peek(CLASSES + name)
        return entry.obj if entry is not None else None
