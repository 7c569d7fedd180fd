"""Everything that can go wrong in the store, and the number each error has on the wire.

`code` is part of the protocol: never reuse one. A reply is `[request, code, body]`; code 0 is success and any other
has the body `[message, details]`, which `from_wire` turns into the same exception on the client's side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

OK = 0


class StoreError(Exception):
    """Any failure of the store. `retriable`: another try, perhaps at another member, can succeed."""

    code: ClassVar[int] = 1
    retriable: ClassVar[bool] = False

    @property
    def details(self) -> list[Any]:
        """Msgpack-safe facts that rebuild the exception; see `from_wire`."""
        return []


class BadRequest(StoreError):
    """The request is malformed; the text names the field."""

    code = 2


class Compacted(StoreError):
    """The revision has been compacted away: list again and watch from there."""

    code = 3

    def __init__(self, message: str = 'required revision has been compacted', compact_revision: int = 0) -> None:
        super().__init__(message)
        self.compact_revision = compact_revision
        """Oldest revision that can still be read."""

    @property
    def details(self) -> list[Any]:
        return [self.compact_revision]


class FutureRevision(StoreError):
    """The revision has not been written yet."""

    code = 4


class NoLeader(StoreError):
    """No leader was elected within the request's deadline."""

    code = 5
    retriable = True


class Timeout(StoreError):
    """The deadline passed. A write keeps its request id, so a later retry of the same call is still exactly-once."""

    code = 6


class NoSpace(StoreError):
    """The quota or the disk is full; deletes and compaction still work."""

    code = 7


class TooLarge(StoreError):
    """A key, value, transaction or reply is over its limit."""

    code = 8


class LeaseNotFound(StoreError):
    """Unknown, expired or revoked lease."""

    code = 9


class LeaseExists(StoreError):
    """A lease with this id is alive."""

    code = 10


class KeyNotFound(StoreError):
    """`ignore_value` or `ignore_lease` needs an existing key."""

    code = 11


class Overloaded(StoreError):
    """Too many requests in flight at this member."""

    code = 12
    retriable = True


class SessionExpired(StoreError):
    """A retry arrived after its session had been forgotten: whether the first try was applied is unknown."""

    code = 13


class Stopped(StoreError):
    """The member or the client is shutting down."""

    code = 14
    retriable = True


class ProtocolError(StoreError):
    """Bytes that are no frame of this protocol, or a peer of another cluster or version."""

    code = 15


class Unreachable(StoreError):
    """No endpoint accepted a connection, or the connection broke."""

    code = 16
    retriable = True


class Corrupt(StoreError):
    """State on disk contradicts itself or the other members."""

    code = 17


class NotLeader(StoreError):
    """Only the leader can do this, and leadership has moved."""

    code = 18
    retriable = True


class Refused(StoreError):
    """An administrative request that the state of the cluster does not allow; the text says why."""

    code = 19


def _tree(cls: type[StoreError]) -> list[type[StoreError]]:
    return [cls, *(d for child in cls.__subclasses__() for d in _tree(child))]


BY_CODE: Mapping[int, type[StoreError]] = {cls.code: cls for cls in _tree(StoreError)}


def to_wire(error: StoreError) -> tuple[int, list[Any]]:
    """The error's code and its body `[message, details]`."""
    return error.code, [str(error), error.details]


def from_wire(code: int, body: Any) -> StoreError:
    """The exception for a reply's code and body; an unknown code gives a plain StoreError."""
    message, details = (body[0], body[1]) if isinstance(body, list) and len(body) == 2 else (str(body), [])
    return BY_CODE.get(code, StoreError)(message, *details)
