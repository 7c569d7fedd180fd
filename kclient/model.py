"""What the client hands out: plain objects, a list with its revision, a watch event."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Obj = dict[str, Any]
"""An object as the JSON decoder made it. Objects from an informer's store are shared: never change them."""

PatchKind = Literal['merge', 'strategic', 'json', 'apply']
Propagation = Literal['Background', 'Foreground', 'Orphan']
EventType = Literal['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK', 'ERROR']


@dataclass(frozen=True, slots=True)
class ObjectList:
    """One page, or the whole list when `continue_` is empty."""

    items: list[Obj]
    resource_version: str
    """The revision that every page of the list shows; a watch starts from here."""
    continue_: str = ''

    def __iter__(self) -> Iterator[Obj]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One frame of a watch stream. `object` is a Status when `type` is ERROR."""

    type: EventType
    object: Obj
