"""VolumeAttachment: a volume on a node."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from kapi.kinds.base import PlainStrategy
from kapi.kinds.printing import AGE, flag, text
from kapi.kinds.rules import immutable, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path


class VolumeAttachmentStrategy(PlainStrategy):
    first_status = MappingProxyType({'attached': False})

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        for field in ('attacher', 'nodeName'):
            if not get_path(new, f'spec.{field}'):
                yield required(f'spec.{field}')
        if old is not None:
            yield from immutable('spec', new.get('spec'), old.get('spec'))


KIND = Kind(
    resource=Resource('storage.k8s.io', 'v1', 'volumeattachments', 'VolumeAttachment', namespaced=False),
    strategy=VolumeAttachmentStrategy(),
    subresources=(Status(),),
    columns=(
        Col('Attacher', text('spec.attacher'), format='name', description='Driver that attaches it.'),
        Col('PV', text('spec.source.persistentVolumeName'), description='The volume.'),
        Col('Node', text('spec.nodeName'), description='The node.'),
        Col('Attached', flag('status.attached'), 'boolean', description='Whether it is there.'),
        AGE,
    ),
)
