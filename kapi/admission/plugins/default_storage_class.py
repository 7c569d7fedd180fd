"""DefaultStorageClass: a claim that names no class gets the newest one that is marked as default."""

from __future__ import annotations

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.storage.cache import Cache

CLASSES = '/registry/storage.k8s.io/storageclasses/'
MARKS = ('storageclass.kubernetes.io/is-default-class', 'storageclass.beta.kubernetes.io/is-default-class')
OLD_ANNOTATION = 'volume.beta.kubernetes.io/storage-class'


class DefaultStorageClass(Plugin):
    name = 'DefaultStorageClass'
    operations: frozenset[Operation] = frozenset({'CREATE'})
    about = frozenset({('', 'persistentvolumeclaims')})

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def mutate(self, a: Attributes) -> None:
        if not a.is_for('', 'persistentvolumeclaims') or a.obj is None:
            return
        spec = a.obj.setdefault('spec', {})
        # An empty name is a choice: no class. Only an absent one is filled in.
        if spec.get('storageClassName') is not None or OLD_ANNOTATION in (a.obj['metadata'].get('annotations') or {}):
            return
        marked = [
            e.obj['metadata']
            for e in self._cache.resource(CLASSES).select(CLASSES)
            if any((e.obj['metadata'].get('annotations') or {}).get(m) == 'true' for m in MARKS)
        ]
        if marked:
            newest = max(m.get('creationTimestamp', '') for m in marked)
            spec['storageClassName'] = min(m['name'] for m in marked if m.get('creationTimestamp', '') == newest)
