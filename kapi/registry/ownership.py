"""Who set which field: `metadata.managedFields` kept up on every write, and server-side apply on the stored object."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kapi.errors import BadRequest, Conflict
from kapi.registry.kind import Kind
from kcore.env import Env
from kcore.meta import fields
from kcore.meta.gvk import Resource
from kcore.meta.schema import Node

if TYPE_CHECKING:
    from kapi.registry.store import Write

Obj = dict[str, Any]
UNKNOWN = 'unknown'


class Ownership:
    def __init__(self, env: Env, node_of: Callable[[Resource], Node]) -> None:
        self._env = env
        self._node_of = node_of

    def record(self, kind: Kind, new: Obj, old: Obj | None, write: Write) -> None:
        """After an Update, what changed is the writer's. An Apply has settled that already."""
        if write.operation == 'Apply':
            return
        who = self._manager(kind, write)
        node, now = self._node_of(kind.resource), self._env.clock.wall()
        entries = fields.record_update(old, new, node, who, now, has_status=kind.has_status)
        if entries:
            new['metadata']['managedFields'] = entries
        else:
            new['metadata'].pop('managedFields', None)

    def apply(self, kind: Kind, old: Obj | None, config: Obj, write: Write) -> Obj:
        """`old` (None: nothing) merged with what `write`'s manager applies. Raises Conflict, BadRequest."""
        node, now = self._node_of(kind.resource), self._env.clock.wall()
        who = self._manager(kind, write)
        try:
            applied = fields.apply(old, config, node, who, now, force=bool(write.options.force))
        except fields.FieldsError as e:
            raise BadRequest(f'failed to create typed patch object: {e}') from e
        if applied.conflicts:
            causes = [c.cause() for c in applied.conflicts]
            raise Conflict(fields.conflict_message(applied.conflicts), details={'causes': causes})
        return applied.merged

    def _manager(self, kind: Kind, write: Write) -> fields.Manager:
        name = write.options.field_manager or UNKNOWN
        operation = 'Apply' if write.operation == 'Apply' else 'Update'
        subresource = '' if write.direct else write.subresource
        return fields.Manager(name, operation, kind.resource.api_version, subresource)  # type: ignore[arg-type]
