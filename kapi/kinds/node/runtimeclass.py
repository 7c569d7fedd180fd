"""RuntimeClass: which runtime runs a pod's containers."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.base import PlainStrategy
from kapi.kinds.core.pod_defaults import normalize_resources
from kapi.kinds.printing import AGE, text
from kapi.kinds.rules import dns_name, immutable
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta import names
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path


class RuntimeClassStrategy(PlainStrategy):
    def default(self, obj: Obj) -> None:
        normalize_resources(get_path(obj, 'overhead.podFixed'))

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        yield from dns_name('handler', new.get('handler'), names.dns_label)
        if old is not None:
            yield from immutable('handler', new.get('handler'), old.get('handler'))


KIND = Kind(
    resource=Resource('node.k8s.io', 'v1', 'runtimeclasses', 'RuntimeClass', namespaced=False),
    strategy=RuntimeClassStrategy(),
    columns=(Col('Handler', text('handler'), description='Name of the runtime.'), AGE),
)
