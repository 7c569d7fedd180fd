"""What a kind *is*: one declaration that names, shapes, prints and constrains a resource.

Built-in kinds are declared in `kapi/kinds/<group>/<kind>.py`; a CustomResourceDefinition builds the very same `Kind`
at run time, so that everything below the declaration is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kapi.registry.conversion import Conversion
from kapi.registry.strategy import Strategy
from kcore.meta.gvk import Resource

Obj = dict[str, Any]
"""An object in its canonical form: what the JSON decoder made."""

STANDARD_VERBS = ('create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch')
READ_WRITE = ('get', 'patch', 'update')

CellOf = Callable[[Obj, datetime], Any]
"""A printed cell: the object and the present moment in; text, number, boolean or None out."""

RowConditionsOf = Callable[[Obj], list[Obj]]
"""What a row of the Table says of its object besides the cells."""

TextOf = Callable[[Obj], str]
"""A field as a selector compares it, where that is not simply the text at a path."""


@dataclass(frozen=True, slots=True)
class Col:
    """One column of the server-side Table (`kubectl get`)."""

    name: str
    value: str | CellOf
    """A dotted path into the object, or a function."""
    type: str = 'string'
    """OpenAPI type: string, integer, number, boolean, date."""
    format: str = ''
    priority: int = 0
    """0 is always shown, 1 only with `-o wide`."""
    description: str = ''


@dataclass(frozen=True, slots=True)
class Status:
    """`/status`: writes touch `status` only; main-endpoint writes never touch it."""

    name: str = 'status'
    verbs: tuple[str, ...] = READ_WRITE


@dataclass(frozen=True, slots=True)
class Scale:
    """`/scale`: an autoscaling/v1 Scale computed from three paths of the object."""

    replicas: str
    status_replicas: str
    selector: str = ''
    """Path of a LabelSelector (or a plain map of labels); printed in string form into `status.selector`."""
    name: str = 'scale'
    verbs: tuple[str, ...] = READ_WRITE


@dataclass(frozen=True, slots=True)
class Connect:
    """A subresource with a handler of its own: log, exec, binding, eviction, token, finalize, …

    The handler is looked up by (`plural`, `name`) in `kapi/server/handlers/`. `kind`, `group` and `version` are what
    discovery lists; they differ from the parent's for a foreign body such as policy/v1 Eviction.
    """

    name: str
    kind: str
    verbs: tuple[str, ...] = ('create',)
    group: str | None = None
    version: str | None = None


Subresource = Status | Scale | Connect


@dataclass(frozen=True, slots=True)
class Alias:
    """A built-in view of objects that are stored as `stored`. The functions do not change their argument."""

    stored: Kind
    to_served: Callable[[Obj], Obj]
    to_stored: Callable[[Obj], Obj]


@dataclass(frozen=True)
class Kind:
    """Everything the generic registry, discovery, OpenAPI, Table and watch cache need to know of a resource."""

    resource: Resource
    strategy: Strategy = field(default_factory=Strategy)
    singular: str = ''
    """Lower-case kind when empty."""
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = STANDARD_VERBS
    subresources: tuple[Subresource, ...] = ()
    columns: tuple[Col, ...] = ()
    """Without Name, which every Table begins with (but see `name_first`); Age only when declared."""
    name_first: bool = True
    """False for the rare Table (events) that declares its own Name column elsewhere."""
    row_conditions: RowConditionsOf | None = None
    row_order: Callable[[Obj], Any] | None = None
    """Sort key of the rows of a list; None: in the order of names."""
    selectable: Mapping[str, str | TextOf] = field(default_factory=dict)
    """Field selector label → dotted path or function, beyond metadata.name and metadata.namespace."""
    conversion: Conversion | None = None
    """None: what is stored is what is served."""
    storage: Resource | None = None
    """Where another resource's objects are shown under this group (events.k8s.io/v1 over v1 events)."""
    alias: Alias | None = None
    """Set when this is another group's or version's view of a built-in kind; see `kapi.registry.alias`."""

    edition: str = ''
    """Tells apart kinds of the same name over time: what was rendered for one must not be shown for another."""
    plural_kind: str = ''
    """Kind of a list of objects; `<kind>List` when empty."""

    @property
    def list_kind(self) -> str:
        return self.plural_kind or f'{self.resource.kind}List'

    @property
    def has_status(self) -> bool:
        return any(isinstance(s, Status) for s in self.subresources)
