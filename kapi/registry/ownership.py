"""Who set which field: `metadata.managedFields` kept up on every write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kapi.registry.kind import Kind
from kcore.env import Env

if TYPE_CHECKING:
    from kapi.registry.store import Write

Obj = dict[str, Any]


class Ownership:
    def __init__(self, env: Env) -> None:
        self._env = env

    def record(self, kind: Kind, new: Obj, old: Obj | None, write: Write) -> None:
        """Update `new`'s managedFields after an Update operation."""
        if old is not None and 'managedFields' in old['metadata']:
            new['metadata']['managedFields'] = old['metadata']['managedFields']
        else:
            new['metadata'].pop('managedFields', None)
