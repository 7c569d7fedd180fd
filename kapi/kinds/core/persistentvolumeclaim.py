"""PersistentVolumeClaim: a wish for storage, and what it was given."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

from kapi.kinds.base import PlainStrategy, put_defaults, spec_of
from kapi.kinds.core.persistentvolume import ACCESS_MODES, VOLUME_CLASS, access_modes, phase_of
from kapi.kinds.core.pod_defaults import normalize_resources
from kapi.kinds.printing import AGE, UNSET, text
from kapi.kinds.rules import forbidden, label_selector, one_of, quantity, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import annotations_of, get_path
from kcore.meta.quantity import parse

CLASS_ANNOTATION = 'volume.beta.kubernetes.io/storage-class'


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
            yield from _changes(new, old)


def _changes(new: Obj, old: Obj) -> Iterator[Invalid]:
    spec, before = new.get('spec') or {}, old.get('spec') or {}
    free = {'volumeAttributesClassName'}
    if not before.get('volumeName'):
        free.add('volumeName')  # the binder's choice
    if before.get('storageClassName') is None and CLASS_ANNOTATION not in annotations_of(old):
        free.add('storageClassName')  # a default that came later than the claim
    rest, rest_before = (_without_size(new, s) for s in (spec, before))
    if any(rest.get(k) != rest_before.get(k) for k in {*rest, *rest_before} - free):
        yield forbidden(
            'spec', 'spec is immutable after creation except resources.requests and volumeAttributesClassName '
            'for bound claims'
        )  # fmt: skip
    size, given = _size(spec, 'resources.requests.storage'), _size(new, 'status.capacity.storage')
    if size < _size(before, 'resources.requests.storage') and size <= given:
        yield forbidden('spec.resources.requests.storage', 'field can not be less than status.capacity')


def _without_size(claim: Obj, spec: Obj) -> Obj:
    """The spec without the wish that a bound claim may change."""
    resources = spec.get('resources') or {}
    if get_path(claim, 'status.phase') != 'Bound':
        return spec
    requests = {k: v for k, v in (resources.get('requests') or {}).items() if k != 'storage'}
    return {**spec, 'resources': {**resources, 'requests': requests}}


def _size(obj: Obj, path: str) -> Decimal:
    return parse(get_path(obj, path) or '0')


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
