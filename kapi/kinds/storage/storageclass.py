"""StorageClass: how volumes of a kind are made."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import PlainStrategy, put_defaults
from kapi.kinds.printing import AGE, flag, text
from kapi.kinds.rules import forbidden, one_of, required
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import annotations_of, name_of

IS_DEFAULT = 'storageclass.kubernetes.io/is-default-class'
_FIXED = ('parameters', 'provisioner', 'reclaimPolicy', 'volumeBindingMode')


class StorageClassStrategy(PlainStrategy):
    def default(self, obj: Obj) -> None:
        put_defaults(obj, reclaimPolicy='Delete', volumeBindingMode='Immediate')

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        if not new.get('provisioner'):
            yield required('provisioner')
        yield from one_of('reclaimPolicy', new.get('reclaimPolicy'), ('Delete', 'Retain'))
        yield from one_of('volumeBindingMode', new.get('volumeBindingMode'), ('Immediate', 'WaitForFirstConsumer'))
        for field in _FIXED if old is not None else ():
            if new.get(field) != (old or {}).get(field):
                yield forbidden(field, f'updates to {field} are forbidden.')


def _name(obj: Obj, _now: datetime) -> str:
    return f'{name_of(obj)} (default)' if annotations_of(obj).get(IS_DEFAULT) == 'true' else name_of(obj)


KIND = Kind(
    resource=Resource('storage.k8s.io', 'v1', 'storageclasses', 'StorageClass', namespaced=False),
    strategy=StorageClassStrategy(),
    short=('sc',),
    name_first=False,
    columns=(
        Col('Name', _name, format='name', description='Name of the class, and whether it is the default.'),
        Col('Provisioner', text('provisioner'), description='Who makes the volumes.'),
        Col('ReclaimPolicy', text('reclaimPolicy', 'Delete'), description='What happens when one is released.'),
        Col('VolumeBindingMode', text('volumeBindingMode', 'Immediate'), description='When claims are bound.'),
        Col('AllowVolumeExpansion', flag('allowVolumeExpansion'), description='Whether volumes may grow.'),
        AGE,
    ),
)
