"""PersistentVolumeClaim: a wish for storage, and what it was given."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import PlainStrategy, put_defaults, spec_of
from kapi.kinds.core.persistentvolume import ACCESS_MODES, VOLUME_CLASS, access_modes, phase_of
from kapi.kinds.core.pod_defaults import normalize_resources
from kapi.kinds.printing import AGE, UNSET, text
from kapi.kinds.rules import forbidden, label_selector, one_of, quantity, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path

_MUTABLE = ('resources', 'volumeAttributesClassName')


class PersistentVolumeClaimStrategy(PlainStrategy):
    returns_deleted_object = True

    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        put_defaults(spec, volumeMode='Filesystem')
        for path in ('resources.requests', 'resources.limits'):
            normalize_resources(get_path(spec, path))
        normalize_resources(get_path(obj, 'status.capacity'))

    def prepare(self, new: Obj, old: Obj | None) -> None:
        if old is None:
            new['status'] = {'phase': 'Pending'}

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        yield from claim_spec('spec', spec)
        if old is not None:
            before = old.get('spec') or {}
            fixed = [k for k in {*spec, *before} - set(_MUTABLE) if spec.get(k) != before.get(k)]
            if before.get('volumeName', '') == '' and 'volumeName' in fixed:
                fixed.remove('volumeName')
            if fixed:
                yield forbidden(
                    'spec', 'spec is immutable after creation except resources.requests and volumeAttributesClassName '
                    'for bound claims'
                )  # fmt: skip


def claim_spec(at: str, spec: Obj) -> Iterator[Invalid]:
    if not spec.get('accessModes'):
        yield required(f'{at}.accessModes', 'at least 1 access mode is required')
    for i, mode in enumerate(spec.get('accessModes') or ()):
        yield from one_of(f'{at}.accessModes[{i}]', mode, ACCESS_MODES)
    storage = get_path(spec, 'resources.requests.storage')
    if storage is None:
        yield required(f'{at}.resources[storage]')
    else:
        yield from quantity(f'{at}.resources[storage]', storage)
    yield from label_selector(f'{at}.selector', spec.get('selector'))


def _capacity(obj: Obj, _now: datetime) -> str:
    return str(get_path(obj, 'status.capacity.storage') or '0') if get_path(obj, 'spec.volumeName') else ''


def _modes(obj: Obj, _now: datetime) -> str:
    return access_modes(get_path(obj, 'status.accessModes')) if get_path(obj, 'spec.volumeName') else ''


KIND = Kind(
    resource=Resource('', 'v1', 'persistentvolumeclaims', 'PersistentVolumeClaim'),
    strategy=PersistentVolumeClaimStrategy(),
    short=('pvc',),
    subresources=(Status(),),
    columns=(
        Col('Status', phase_of, description='Phase of the claim.'),
        Col('Volume', text('spec.volumeName'), description='Volume it is bound to.'),
        Col('Capacity', _capacity, description='How much it was given.'),
        Col('Access Modes', _modes, description='How it can be mounted.'),
        Col('StorageClass', text('spec.storageClassName'), description='Class it asks for.'),
        VOLUME_CLASS,
        AGE,
        Col('VolumeMode', text('spec.volumeMode', UNSET), priority=1, description='Filesystem or Block.'),
    ),
)
