"""PersistentVolumeClaimResize: only a claim of a class that allows it may ask for more (bound it must be, too).

Source: plugin/pkg/admission/storage/persistentvolume/resize/admission.go.
"""

from __future__ import annotations

from decimal import Decimal

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.admission.plugins.default_storage_class import CLASSES, OLD_ANNOTATION
from kapi.errors import Forbidden
from kapi.registry.kind import Obj
from kapi.storage.cache import Cache
from kcore.meta import quantity
from kcore.meta.objects import annotations_of, get_path


class ClaimResize(Plugin):
    name = 'PersistentVolumeClaimResize'
    operations: frozenset[Operation] = frozenset({'UPDATE'})
    about = frozenset({('', 'persistentvolumeclaims')})

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def validate(self, a: Attributes) -> None:
        if not a.is_for('', 'persistentvolumeclaims') or a.obj is None or a.old is None or _asks(a.obj) <= _asks(a.old):
            return
        if _class_of(a.obj) != _class_of(a.old) or not self._growing(_class_of(a.obj)):
            raise Forbidden.on(
                a.kind.resource, a.name, 'only dynamically provisioned pvc can be resized and the storageclass that '
                'provisions the pvc must support resize',
            )  # fmt: skip

    def _growing(self, name: str) -> bool:
        """Whether there is such a class, and its volumes may grow."""
        entry = self._cache.peek(CLASSES + name) if name else None
        return entry is not None and entry.obj.get('allowVolumeExpansion') is True


def _asks(claim: Obj) -> Decimal:
    return quantity.parse(get_path(claim, 'spec.resources.requests.storage') or '0')


def _class_of(claim: Obj) -> str:
    return str(annotations_of(claim).get(OLD_ANNOTATION) or get_path(claim, 'spec.storageClassName') or '')
