"""What a kind *does* on a write, as pure functions: default → prepare → validate, plus the grace of a deletion.

All of it runs inside the registry's optimistic retry, so every method must be repeatable. None may do I/O or await;
what needs the store (address allocation, quota) is admission's or the registry's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Obj = dict[str, Any]

Cause = Literal[
    'FieldValueRequired', 'FieldValueInvalid', 'FieldValueNotSupported', 'FieldValueForbidden', 'FieldValueDuplicate',
    'FieldValueTooLong', 'FieldValueTypeInvalid', 'FieldValueNotFound', 'FieldValueTooMany',
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Invalid:
    """One broken rule; `message` is upstream's text, for example `Required value: must specify a name`.

    Source of texts: apimachinery/pkg/util/validation/field/errors.go.
    """

    field: str
    """JSON path as upstream prints it: `spec.containers[0].name`."""
    message: str
    cause: Cause = 'FieldValueInvalid'


class Strategy:
    """The rules that most kinds share; a kind overrides what differs."""

    generation = True
    """metadata.generation grows by one whenever `spec` changes."""
    unconditional_update = True
    """A PUT without resourceVersion overwrites."""
    create_on_update = False
    """A PUT of a missing object creates it (Lease, Event)."""
    default_propagation: Literal['Background', 'Orphan'] = 'Background'
    orphan_warning = ''
    """Told when a DELETE leaves the policy to a kind that keeps what it owns."""
    status_on_create = False
    """A create may bring its status along (Node: the agent registers itself with one)."""
    first_status: Mapping[str, Any] | None = None
    """Status of a new object, where `prepare` gives none: what a Go server shows of a struct that nobody filled."""
    status_keeps: tuple[str, ...] = ()
    """Fields of the metadata that a write through /status leaves as they were; `*` is all of them."""
    returns_deleted_object = False
    """DELETE answers with the object instead of a Status."""

    deletion_finalizers: tuple[str, ...] = ()
    """Put on the object when its deletion begins, for a cleanup of the server's own."""

    def default(self, obj: Obj) -> None:
        """Fill in the API's defaults, in place; idempotent. Runs on every write and after mutating admission."""

    def prepare(self, new: Obj, old: Obj | None) -> None:
        """Reset what a client may not set, in place; `old` is None on create. `status` is handled by the registry."""

    def prepare_status(self, new: Obj, old: Obj) -> None:
        """As `prepare`, for a write through /status; `spec` and most metadata are the old object's already."""

    def observe(self, new: Obj) -> None:
        """Note in the status what the server itself has seen to, in place; the generation is the new one already."""

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        """The kind's own 422 rules, after metadata and schema were checked."""
        yield from ()

    def validate_status(self, new: Obj, old: Obj) -> Iterator[Invalid]:
        yield from ()

    def validate_part(self, subresource: str, new: Obj, old: Obj) -> Iterator[Invalid]:
        """As `validate`, for a write through a subresource that may change only a part of the object."""
        yield from ()

    def warnings(self, new: Obj, old: Obj | None) -> Iterator[str]:
        """Texts for `Warning:` headers."""
        yield from ()

    def grace_period_s(self, obj: Obj, requested_s: int | None) -> int:
        """Seconds of graceful deletion; 0 deletes at once (every kind but Pod)."""
        return 0
