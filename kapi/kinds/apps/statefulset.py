"""StatefulSet: pods with names, order and storage of their own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from types import MappingProxyType

from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.core.pod_defaults import default_template
from kapi.kinds.core.pod_rules import template
from kapi.kinds.printing import AGE, CONTAINERS, IMAGES
from kapi.kinds.rules import forbidden, invalid, not_negative, one_of, selects_template
from kapi.registry.kind import Col, Kind, Obj, Scale, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path

HISTORY_LIMIT = 10
_MUTABLE = ('replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit',
            'persistentVolumeClaimRetentionPolicy', 'minReadySeconds')  # fmt: skip
_FIXED = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


class StatefulSetStrategy(BuiltinStrategy):
    first_status = MappingProxyType({'replicas': 0, 'availableReplicas': 0})

    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        put_defaults(spec, replicas=1, podManagementPolicy='OrderedReady', revisionHistoryLimit=HISTORY_LIMIT)
        update = spec.setdefault('updateStrategy', {})
        put_defaults(update, type='RollingUpdate')
        if update['type'] == 'RollingUpdate':
            put_defaults(update.setdefault('rollingUpdate', {}), partition=0)
        retention = spec.setdefault('persistentVolumeClaimRetentionPolicy', {})
        put_defaults(retention, whenDeleted='Retain', whenScaled='Retain')
        default_template(spec.get('template'))
        for claim in spec.get('volumeClaimTemplates') or ():
            put_defaults(claim, apiVersion='v1', kind='PersistentVolumeClaim', status={'phase': 'Pending'})
            put_defaults(claim.setdefault('spec', {}), volumeMode='Filesystem')

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        for field in ('replicas', 'minReadySeconds', 'revisionHistoryLimit'):
            yield from not_negative(f'spec.{field}', spec.get(field))
        yield from one_of('spec.podManagementPolicy', spec.get('podManagementPolicy'), ('OrderedReady', 'Parallel'))
        update = spec.get('updateStrategy') or {}
        yield from one_of('spec.updateStrategy.type', update.get('type'), ('OnDelete', 'RollingUpdate'))
        if update.get('type') == 'OnDelete' and update.get('rollingUpdate') is not None:
            detail = "only allowed for updateStrategy 'RollingUpdate'"
            yield invalid('spec.updateStrategy.rollingUpdate', update['rollingUpdate'], detail)
        yield from not_negative(
            'spec.updateStrategy.rollingUpdate.partition', get_path(update, 'rollingUpdate.partition')
        )
        yield from selects_template(spec)
        yield from template('spec.template', _with_claims(spec))
        before = (old or {}).get('spec') or {}
        if old is not None and any(spec.get(k) != before.get(k) for k in {*spec, *before} - set(_MUTABLE)):
            yield forbidden('spec', _FIXED)


def _with_claims(spec: Obj) -> Obj | None:
    """The template as its pods will see it: claim templates count as volumes, so that mounts find them."""
    found: Obj | None = spec.get('template')
    claims = [c['metadata']['name'] for c in spec.get('volumeClaimTemplates') or () if get_path(c, 'metadata.name')]
    if not found or not claims:
        return found
    pod = found.get('spec') or {}
    own = [v for v in pod.get('volumes') or () if v.get('name') not in claims]
    extra = [{'name': name, 'persistentVolumeClaim': {'claimName': name}} for name in claims]
    return {**found, 'spec': {**pod, 'volumes': [*own, *extra]}}


def _ready(obj: Obj, _now: datetime) -> str:
    return f'{get_path(obj, "status.readyReplicas") or 0}/{get_path(obj, "spec.replicas") or 0}'


KIND = Kind(
    resource=Resource('apps', 'v1', 'statefulsets', 'StatefulSet'),
    strategy=StatefulSetStrategy(),
    short=('sts',),
    categories=('all',),
    subresources=(Scale('spec.replicas', 'status.replicas', 'spec.selector'), Status()),
    columns=(Col('Ready', _ready, description='Pods that are ready, of all that are wanted.'), AGE, CONTAINERS, IMAGES),
)
