"""Structural schema of an object, as a graph of nodes: what a field is, and how lists and maps merge.

One representation serves decoding, strategic merge, server-side apply and OpenAPI. Built-in kinds get theirs from the
generated data in `kapi.schemas`, a CustomResourceDefinition from its own structural schema.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

NodeType = Literal[
    'object', 'map', 'array', 'string', 'int32', 'int64', 'number', 'boolean',
    'quantity', 'int-or-string', 'time', 'micro-time', 'bytes', 'any',
]  # fmt: skip
"""`object` has known fields, `map` has any key and one value type; `any` is arbitrary JSON."""


@dataclass(slots=True, eq=False)
class Node:
    """One field's schema. Graphs may be cyclic (JSONSchemaProps); treat as read-only once built."""

    type: NodeType
    name: str = ''
    """Definition it comes from (`io.k8s.api.core.v1.Pod`); empty for an inline node."""
    fields: dict[str, Node] = field(default_factory=dict)
    items: Node | None = None
    """Element of an array, value of a map."""
    required: tuple[str, ...] = ()
    list_type: Literal['atomic', 'map', 'set'] = 'atomic'
    """How server-side apply merges an array."""
    keys: tuple[str, ...] = ()
    """Key fields of a `map` list."""
    merge_key: str = ''
    """Key field by which strategic merge joins an array of objects; not always the same as `keys`."""
    strategies: tuple[str, ...] = ()
    """Of strategic merge: `merge`, `replace`, `retainKeys`."""
    atomic: bool = False
    """Server-side apply owns this object or map as a whole."""
    preserve_unknown: bool = False
    """Fields not listed are kept and fine."""
    embedded: bool = False
    """Holds a whole object: apiVersion, kind and metadata are kept and checked."""
    nullable: bool = False
    """A null is kept as a value (custom resources only)."""

    def child(self, key: str) -> Node | None:
        """Schema of the value under `key`, or None when nothing is known of it."""
        found = self.fields.get(key)
        return found if found is not None else self.items if self.type == 'map' else None


ANY = Node('any', preserve_unknown=True)
"""Arbitrary JSON; also what a patch uses where no schema is known."""
