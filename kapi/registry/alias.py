"""One stored object in several versions: what is stored is one kind, what is served may be another's view of it.

Everything below the handlers (strategy, admission, storage, cache) knows only the stored kind; a view is converted
on its way in and out. The converted bytes of an entry are made once and shared by its readers.
"""

from __future__ import annotations

from typing import Any

from kapi.registry.kind import Kind
from kapi.storage.codec import encode
from kapi.storage.entries import Entry

Obj = dict[str, Any]


def stored_kind(kind: Kind) -> Kind:
    """The kind whose rules hold and whose form is stored."""
    return kind if kind.alias is None else kind.alias.stored


def to_stored(kind: Kind, obj: Obj) -> Obj:
    return obj if kind.alias is None else kind.alias.to_stored(obj)


def to_served(kind: Kind, obj: Obj) -> Obj:
    return obj if kind.alias is None else kind.alias.to_served(obj)


def served_entry(kind: Kind, entry: Entry) -> Entry:
    """The entry as `kind` shows it."""
    alias = kind.alias
    if kind.conversion is not None:
        return kind.conversion.seen(entry) or entry
    if alias is None:
        return entry
    version = kind.resource.api_version
    value = entry.view(version, lambda e: encode(alias.to_served(e.obj if e.rv else e.decoded)))
    return Entry(entry.key, value, entry.rv)
