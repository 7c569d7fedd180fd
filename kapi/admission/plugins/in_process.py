"""Plugins in Python, loaded with the server: functions marked `@mutate` or `@validate`, named by `--admission-module`.

from kapi.admission.plugins.in_process import mutate

@mutate('pods', operations=('CREATE',))
async def team_label(a):
    a.obj['metadata'].setdefault('labels', {}).setdefault('team', 'none')
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from kapi.admission.chain import OPERATIONS, Attributes, Operation, Plugin
from kcore.tasks import BadSetting

Function = Callable[[Attributes], Awaitable[None]]
_MARK = '__kubeling_admission__'


@dataclass(frozen=True, slots=True)
class Mark:
    phase: Literal['mutate', 'validate']
    resources: tuple[str, ...]
    """`pods`, `deployments.apps`, `pods/status`, or `*`."""
    operations: tuple[Operation, ...]

    def concerns(self, a: Attributes) -> bool:
        name = a.kind.resource.qualified + (f'/{a.subresource}' if a.subresource else '')
        return a.operation in self.operations and (name in self.resources or '*' in self.resources)


def _marked(phase: Literal['mutate', 'validate'], resources: tuple[str, ...], operations: Iterable[Operation]) -> Any:
    def mark(function: Function) -> Function:
        setattr(function, _MARK, Mark(phase, resources or ('*',), tuple(operations)))
        return function

    return mark


def mutate(*resources: str, operations: Iterable[Operation] = ('CREATE', 'UPDATE')) -> Any:
    """Marks an async function that may change `a.obj` in place, or refuse by raising an error of `kapi.errors`."""
    return _marked('mutate', resources, operations)


def validate(*resources: str, operations: Iterable[Operation] = OPERATIONS) -> Any:
    """Marks an async function that refuses by raising an error of `kapi.errors`."""
    return _marked('validate', resources, operations)


class BadModule(BadSetting):
    """A module that cannot be loaded or holds no plugin; the text names it."""


class InProcess(Plugin):
    name = 'InProcess'
    operations: frozenset[Operation] = frozenset(OPERATIONS)

    def __init__(self, functions: Iterable[Function]) -> None:
        self._functions = [(getattr(f, _MARK), f) for f in functions]
        if not self._functions:
            self.about = frozenset()

    @staticmethod
    def load(modules: Iterable[str]) -> InProcess:
        """Raises BadModule."""
        found: list[Function] = []
        for name in modules:
            try:
                module = importlib.import_module(name)
            except ImportError as e:
                raise BadModule(f'--admission-modules: {name} cannot be imported: {e}') from e
            marked = [f for f in vars(module).values() if hasattr(f, _MARK)]
            if not marked:
                raise BadModule(f'--admission-modules: {name} holds no function marked @mutate or @validate')
            found += marked
        return InProcess(found)

    async def mutate(self, a: Attributes) -> None:
        await self._run('mutate', a)

    async def validate(self, a: Attributes) -> None:
        await self._run('validate', a)

    async def _run(self, phase: str, a: Attributes) -> None:
        for mark, function in self._functions:
            if mark.phase == phase and mark.concerns(a):
                await function(a)
