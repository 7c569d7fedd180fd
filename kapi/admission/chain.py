"""The admission chain: every plugin that handles the operation mutates, in order; then every one validates.

A plugin is a class with `name`, `operations`, `mutate` and `validate`. The order is policy, so it is written down in
`plugins/__init__.py`. Source: apiserver pkg/admission/chain.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import structlog

from kapi.authn.user import User
from kapi.registry.kind import Kind
from kapi.storage.base import StorageError
from kcore.meta.gvk import Resource

Obj = dict[str, Any]
log = structlog.get_logger('kapi.admission')
Operation = Literal['CREATE', 'UPDATE', 'DELETE', 'CONNECT']


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


class Plugin(Protocol):
    name: str
    operations: frozenset[Operation]

    async def mutate(self, a: Attributes) -> None:
        """Change `a.obj` in place. Raises Forbidden, Invalid, NotFound."""

    async def validate(self, a: Attributes) -> None:
        """Refuse, or do nothing; never changes `a.obj`."""


class Chain:
    """Plugins by operation, in order."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.plugins = tuple(plugins)
        operations: tuple[Operation, ...] = ('CREATE', 'UPDATE', 'DELETE', 'CONNECT')
        self._by_operation = {op: tuple(p for p in plugins if op in p.operations) for op in operations}

    async def mutate(self, a: Attributes) -> None:
        for plugin in self._by_operation[a.operation]:
            await plugin.mutate(a)

    async def validate(self, a: Attributes) -> None:
        try:
            for plugin in self._by_operation[a.operation]:
                await plugin.validate(a)
        except BaseException:
            await a.failed()
            raise
