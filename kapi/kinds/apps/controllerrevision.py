"""ControllerRevision: an immutable snapshot of a workload's template."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import PlainStrategy
from kapi.kinds.printing import AGE, NONE, number
from kapi.kinds.rules import immutable, not_negative
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import controller_of


class ControllerRevisionStrategy(PlainStrategy):
    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        yield from not_negative('revision', new.get('revision'))
        if old is not None:
            yield from immutable('data', new.get('data'), old.get('data'))


def _controller(obj: Obj, _now: datetime) -> str:
    owner = controller_of(obj)
    if owner is None:
        return NONE
    group, slash, _ = str(owner.get('apiVersion', '')).partition('/')
    kind = str(owner.get('kind', '')).lower()
    return f'{kind}.{group}/{owner.get("name")}' if slash else f'{kind}/{owner.get("name")}'


KIND = Kind(
    resource=Resource('apps', 'v1', 'controllerrevisions', 'ControllerRevision'),
    strategy=ControllerRevisionStrategy(),
    columns=(
        Col('Controller', _controller, description='Whose revision it is.'),
        Col('Revision', number('revision'), description='Its number.'),
        AGE,
    ),
)
