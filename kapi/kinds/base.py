"""The strategy that built-in kinds start from: a name check on create, then the kind's own rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from kapi.kinds.rules import complaints
from kapi.registry.strategy import Invalid, Strategy
from kcore.meta import names

Obj = dict[str, Any]


class BuiltinStrategy(Strategy):
    """Subclasses override `rules` (and `default`, `prepare` where they need to)."""

    first_status: Mapping[str, Any] | None = MappingProxyType({})
    name_check: names.NameCheck = staticmethod(names.dns_subdomain)

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        if old is None:
            name = new['metadata'].get('name') or ''
            if name:
                yield from complaints('metadata.name', name, type(self).name_check(name))
        yield from self.rules(new, old)

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        """The kind's own 422 rules."""
        yield from ()


class PlainStrategy(BuiltinStrategy):
    """A kind without a spec: no generation is counted."""

    generation = False


def spec_of(obj: Obj) -> Obj:
    """`spec`, created when it is missing, so that defaults have a place."""
    found = obj.get('spec')
    if not isinstance(found, dict):
        found = obj['spec'] = {}
    return found


def put_defaults(target: Obj, **values: Any) -> None:
    """Set each absent field. Values must be scalars or fresh containers."""
    for key, value in values.items():
        if key not in target:
            target[key] = value
