"""CSIDriver: what a storage driver can do and wants."""

from __future__ import annotations

from datetime import datetime

from kapi.kinds.base import PlainStrategy, put_defaults, spec_of
from kapi.kinds.printing import AGE, NONE, UNSET, flag
from kapi.registry.kind import Col, Kind, Obj
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path


class CSIDriverStrategy(PlainStrategy):
    def default(self, obj: Obj) -> None:
        put_defaults(
            spec_of(obj),
            attachRequired=True,
            podInfoOnMount=False,
            storageCapacity=False,
            fsGroupPolicy='ReadWriteOnceWithFSType',
            volumeLifecycleModes=['Persistent'],
            requiresRepublish=False,
            seLinuxMount=False,
        )


def _tokens(obj: Obj, _now: datetime) -> str:
    return ','.join(t.get('audience') or '' for t in get_path(obj, 'spec.tokenRequests') or ()) or UNSET


def _modes(obj: Obj, _now: datetime) -> str:
    return ','.join(get_path(obj, 'spec.volumeLifecycleModes') or ()) or NONE


KIND = Kind(
    resource=Resource('storage.k8s.io', 'v1', 'csidrivers', 'CSIDriver', namespaced=False),
    strategy=CSIDriverStrategy(),
    columns=(
        Col('AttachRequired', flag('spec.attachRequired'), 'boolean', description='Volumes must be attached first.'),
        Col('PodInfoOnMount', flag('spec.podInfoOnMount'), 'boolean', description='Wants to know the pod.'),
        Col('StorageCapacity', flag('spec.storageCapacity'), 'boolean', description='Reports capacity.'),
        Col('TokenRequests', _tokens, description='Audiences of the tokens it wants.'),
        Col('RequiresRepublish', flag('spec.requiresRepublish'), 'boolean', description='Wants to be asked again.'),
        Col('Modes', _modes, description='Lifecycles of its volumes.'),
        AGE,
    ),
)
