"""The admission chain: every plugin that handles the operation mutates, in order; then every one validates.

A plugin says what it is about and defines `mutate`, `validate` or both: what it has nothing to do with does not come
to it. The order is policy, so it is written down in `plugins/__init__.py`. Source: apiserver pkg/admission/chain.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog

from kapi.authn.user import User
from kapi.registry.kind import Kind
from kapi.storage.base import StorageError
from kcore.meta.gvk import Resource

Obj = dict[str, Any]
log = structlog.get_logger('kapi.admission')
Operation = Literal['CREATE', 'UPDATE', 'DELETE', 'CONNECT']
OPERATIONS: tuple[Operation, ...] = ('CREATE', 'UPDATE', 'DELETE', 'CONNECT')


@dataclass(slots=True)
class Attributes:
    """One write as admission sees it. `obj` may be changed in place by `mutate`; None for a deletion."""

    operation: Operation
    kind: Kind
    namespace: str
    name: str
    obj: Obj | None
    old: Obj | None
    user: User
    subresource: str = ''
    shown: Resource | None = None
    """Group, version and kind of the request's own body where it is none of `kind`'s: a Scale, an Eviction."""
    requested: Kind | None = None
    """As which the client wrote, where `kind` is another version of that."""
    dry_run: bool = False
    options: Obj = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    """For the audit log."""
    undo: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """Run when the write fails after admission let it pass (a quota's place is given back)."""

    async def failed(self) -> None:
        """The write came to nothing."""
        while self.undo:
            undo = self.undo.pop()
            try:
                await undo()
            except StorageError as e:
                log.warning('a reservation was not given back; it ends by itself', err=str(e), name=self.name)

    @property
    def body(self) -> Resource:
        """What `obj` is."""
        return self.shown or self.kind.resource

    @property
    def asked(self) -> Kind:
        """The kind of the URL."""
        return self.requested or self.kind

    def is_for(self, group: str, plural: str, subresource: str = '') -> bool:
        r = self.kind.resource
        return r.plural == plural and r.group == group and self.subresource == subresource


class Plugin:
    """What all plugins are; a phase that one does not define is nothing to it."""

    name: str
    operations: frozenset[Operation]
    about: frozenset[tuple[str, str]] | None = None
    """Group and plural of the resources that it looks at; None for any."""

    async def mutate(self, a: Attributes) -> None:
        """Change `a.obj` in place. Raises Forbidden, Invalid, NotFound."""

    async def validate(self, a: Attributes) -> None:
        """Refuse, or do nothing; never changes `a.obj`."""


Step = Callable[[Attributes], Awaitable[None]]


class _Phase:
    """The steps of one phase, in order, for each operation and resource."""

    def __init__(self, plugins: Sequence[Plugin], phase: Literal['mutate', 'validate']) -> None:
        active = [p for p in plugins if getattr(type(p), phase) is not getattr(Plugin, phase)]
        named = frozenset[tuple[str, str]]().union(*(p.about or () for p in active))
        self._any: dict[Operation, tuple[Step, ...]] = {}
        self._named: dict[tuple[Operation, str, str], tuple[Step, ...]] = {}
        """For the resources that some plugin names."""
        for op in OPERATIONS:
            handling = [p for p in active if op in p.operations]
            self._any[op] = tuple(getattr(p, phase) for p in handling if p.about is None)
            for group, plural in named:
                concerned = [p for p in handling if p.about is None or (group, plural) in p.about]
                self._named[op, group, plural] = tuple(getattr(p, phase) for p in concerned)

    def steps(self, a: Attributes) -> tuple[Step, ...]:
        r = a.kind.resource
        named = self._named.get((a.operation, r.group, r.plural))
        return self._any[a.operation] if named is None else named


class Chain:
    """Plugins in order."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self._mutating, self._validating = _Phase(plugins, 'mutate'), _Phase(plugins, 'validate')

    async def mutate(self, a: Attributes) -> None:
        for step in self._mutating.steps(a):
            await step(a)

    async def validate(self, a: Attributes) -> None:
        try:
            for step in self._validating.steps(a):
                await step(a)
        except BaseException:
            await a.failed()
            raise
