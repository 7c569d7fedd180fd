"""PersistentVolume: a piece of storage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import PlainStrategy, put_defaults, spec_of
from kapi.kinds.core.pod_defaults import normalize_resources
from kapi.kinds.printing import AGE, UNSET, text
from kapi.kinds.rules import forbidden, one_of, quantity, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import deleting, get_path

ACCESS_MODES = ('ReadOnlyMany', 'ReadWriteMany', 'ReadWriteOnce', 'ReadWriteOncePod')
_SHORT_MODES = {'ReadWriteOnce': 'RWO', 'ReadOnlyMany': 'ROX', 'ReadWriteMany': 'RWX', 'ReadWriteOncePod': 'RWOP'}
_NOT_SOURCES = frozenset({'accessModes', 'capacity', 'claimRef', 'mountOptions', 'nodeAffinity', 'storageClassName',
                          'persistentVolumeReclaimPolicy', 'volumeAttributesClassName', 'volumeMode'})  # fmt: skip


class PersistentVolumeStrategy(PlainStrategy):
    returns_deleted_object = True

    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        put_defaults(spec, persistentVolumeReclaimPolicy='Retain', volumeMode='Filesystem')
        normalize_resources(spec.get('capacity'))
        if isinstance(spec.get('hostPath'), dict):
            put_defaults(spec['hostPath'], type='')

    def prepare(self, new: Obj, old: Obj | None) -> None:
        if old is None:
            new['status'] = {'phase': 'Pending'}

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        if not spec.get('accessModes'):
            yield required('spec.accessModes')
        for i, mode in enumerate(spec.get('accessModes') or ()):
            yield from one_of(f'spec.accessModes[{i}]', mode, ACCESS_MODES)
        if not spec.get('capacity'):
            yield required('spec.capacity')
        for name, amount in (spec.get('capacity') or {}).items():
            yield from quantity(f'spec.capacity[{name}]', amount)
        policy = spec.get('persistentVolumeReclaimPolicy')
        yield from one_of('spec.persistentVolumeReclaimPolicy', policy, ('Delete', 'Recycle', 'Retain'))
        sources = [key for key in spec if key not in _NOT_SOURCES]
        if not sources:
            yield required('spec', 'must specify a volume type')
        for extra in sources[1:]:
            yield forbidden(f'spec.{extra}', 'may not specify more than 1 volume type')
        if old is not None and any(spec.get(s) != (old.get('spec') or {}).get(s) for s in sources):
            yield forbidden('spec.persistentvolumesource', 'spec.persistentvolumesource is immutable after creation')


def access_modes(modes: list[str] | None) -> str:
    """`RWO,ROX`: each once, in one order."""
    return ','.join(short for mode, short in _SHORT_MODES.items() if mode in (modes or ()))


def phase_of(obj: Obj, _now: datetime) -> str:
    return 'Terminating' if deleting(obj) else str(get_path(obj, 'status.phase') or '')


def _claim(obj: Obj, _now: datetime) -> str:
    ref = get_path(obj, 'spec.claimRef')
    return f'{ref.get("namespace", "")}/{ref.get("name", "")}' if ref else ''


def _modes(obj: Obj, _now: datetime) -> str:
    return access_modes(get_path(obj, 'spec.accessModes'))


VOLUME_CLASS = Col(
    'VolumeAttributesClass', text('spec.volumeAttributesClassName', UNSET), description='Class of tuning.'
)
KIND = Kind(
    resource=Resource('', 'v1', 'persistentvolumes', 'PersistentVolume', namespaced=False),
    strategy=PersistentVolumeStrategy(),
    short=('pv',),
    subresources=(Status(),),
    columns=(
        Col('Capacity', text('spec.capacity.storage'), description='How much it holds.'),
        Col('Access Modes', _modes, description='How it can be mounted.'),
        Col('Reclaim Policy', text('spec.persistentVolumeReclaimPolicy'), description='What happens when released.'),
        Col('Status', phase_of, description='Phase of the volume.'),
        Col('Claim', _claim, description='Claim it is bound to.'),
        Col('StorageClass', text('spec.storageClassName'), description='Class it belongs to.'),
        VOLUME_CLASS,
        Col('Reason', text('status.reason'), description='Why it is in this phase.'),
        AGE,
        Col('VolumeMode', text('spec.volumeMode', UNSET), priority=1, description='Filesystem or Block.'),
    ),
)
