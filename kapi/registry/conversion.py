"""What the registry asks of a kind whose objects are stored in another version than they are served in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from kapi.storage.entries import Entry

Obj = dict[str, Any]


class Conversion(Protocol):
    """How objects that are stored in one version are seen in another (custom resources)."""

    @property
    def simple(self) -> bool:
        """Whether `seen` always knows."""

    def seen(self, entry: Entry) -> Entry | None:
        """The entry in this version; None when somebody must be asked first."""

    async def served(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries in this version. Raises InternalError."""

    async def converted(self, obj: Obj, api_version: str) -> Obj:
        """An object of this version in another one. Raises InternalError."""

    async def stored(self, obj: Obj) -> Obj:
        """An object of this version as it is to be stored. Raises InternalError."""
