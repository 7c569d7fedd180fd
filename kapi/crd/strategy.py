"""What a custom resource does on a write: defaults, generation, schema, rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kapi.crd.rules import Evaluation, RuleNode
from kapi.crd.values import MISSING, Values
from kapi.registry.strategy import Invalid, Strategy
from kapi.schemas.structural import Structural
from kcore.meta.objects import get_path

Obj = dict[str, Any]
INT32_MAX = 2**31 - 1
_NOT_COUNTED = frozenset({'metadata', 'apiVersion', 'kind'})


class CustomStrategy(Strategy):
    """Of one version of one definition."""

    unconditional_update = False

    def __init__(
        self,
        schema: Structural,
        rules: RuleNode | None,
        *,
        has_status: bool,
        replicas: tuple[str, ...] = (),
        warning: str = '',
    ) -> None:
        self._schema = schema
        self._values = Values(schema.props)
        self._rules = rules
        self._has_status = has_status
        self._replicas = replicas
        """Paths of the numbers that /scale shows."""
        self._warning = warning
        """Of a deprecated version."""

    def default(self, obj: Obj) -> None:
        self._schema.default(obj)

    def prepare(self, new: Obj, old: Obj | None) -> None:
        """metadata.generation counts every change outside of metadata (and of status, when that is a subresource)."""
        meta = new['metadata']
        if old is None:
            meta['generation'] = 1
            return
        ignored = _NOT_COUNTED | {'status'} if self._has_status else _NOT_COUNTED
        if any(new.get(k) != old.get(k) for k in new.keys() | old.keys() if k not in ignored):
            meta['generation'] = int(old['metadata'].get('generation') or 0) + 1

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        before = MISSING if old is None else old
        broken = list(self._values.validate(new, before))
        yield from broken
        if self._rules is not None and not broken:  # rules may rely on the types
            yield from Evaluation().run(self._rules, new, before)
        for path in self._replicas:
            count = get_path(new, path)
            if isinstance(count, int) and not 0 <= count <= INT32_MAX:
                most = f'should be less than or equal to {INT32_MAX}'
                why = 'should be a non-negative integer' if count < 0 else most
                yield Invalid(path, f'Invalid value: {count}: {why}')

    def warnings(self, new: Obj, old: Obj | None) -> Iterator[str]:
        if self._warning:
            yield self._warning

    def validate_status(self, new: Obj, old: Obj) -> Iterator[Invalid]:
        yield from self.validate(new, old)
