"""PodTemplate: a pod template that stands alone."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.base import BuiltinStrategy
from kapi.kinds.core.pod_defaults import default_template
from kapi.kinds.core.pod_rules import RESTART_POLICIES, template
from kapi.kinds.printing import containers_cell, labels_at
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource


class PodTemplateStrategy(BuiltinStrategy):
    returns_deleted_object = True

    def default(self, obj: Obj) -> None:
        default_template(obj.get('template'))

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        yield from template('template', new.get('template'), restart=RESTART_POLICIES)


KIND = Kind(
    resource=Resource('', 'v1', 'podtemplates', 'PodTemplate'),
    strategy=PodTemplateStrategy(),
    columns=(
        Col('Containers', containers_cell('name', 'template.spec'), description='Names of the containers.'),
        Col('Images', containers_cell('image', 'template.spec'), description='Images of the containers.'),
        Col('Pod Labels', labels_at('template.metadata.labels'), description='Labels of the pods made from it.'),
    ),
)
