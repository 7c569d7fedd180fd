"""Which kinds are served now: the built-in ones, and those that definitions add and take away at run time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kapi.registry.kind import Kind
from kcore.meta.gvk import Resource

DOTLESS_GROUPS = frozenset({'apps', 'autoscaling', 'batch', 'policy'})


def key_prefix(resource: Resource) -> str:
    """Where objects of this resource live in the store; independent of the version."""
    return f'/registry/{resource.group}/{resource.plural}/' if resource.group else f'/registry/{resource.plural}/'


class Catalog:
    """Kinds by group, version and plural; `generation` grows with every change, so that documents can be cached."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._kinds: dict[tuple[str, str, str], Kind] = {}
        self._stored: dict[str, dict[tuple[str, str], Kind]] = {}
        """By where their objects live in the store, group and version."""
        self.generation = 0
        for kind in kinds:
            self.add(kind)

    def add(self, kind: Kind) -> None:
        r = kind.resource
        self._kinds[r.group, r.version, r.plural] = kind
        self._stored.setdefault(key_prefix(kind.storage or r), {})[r.group, r.version] = kind
        self.generation += 1

    def remove(self, resource: Resource) -> None:
        kind = self._kinds.pop((resource.group, resource.version, resource.plural), None)
        if kind is not None:
            self._stored[key_prefix(kind.storage or kind.resource)].pop((resource.group, resource.version))
        self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return self._kinds.get((group, version, plural))

    def equivalents(self, kind: Kind) -> tuple[Kind, ...]:
        """All kinds that show the objects of this one: other versions, and events in both their groups."""
        return tuple(self._stored.get(key_prefix(kind.storage or kind.resource), {}).values())

    def by_kind(self, group: str, version: str, kind: str) -> Kind | None:
        return next(
            (k for k in self if (k.resource.group, k.resource.version, k.resource.kind) == (group, version, kind)), None
        )

    def serves(self, group: str, version: str) -> bool:
        return any(g == group and v == version for g, v, _ in self._kinds)

    def __iter__(self) -> Iterator[Kind]:
        return iter(tuple(self._kinds.values()))
