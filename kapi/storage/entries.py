"""What the watch cache holds: one entry an object version, one event a change, each rendered at most once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import orjson

from kapi.storage.base import Versioned
from kapi.storage.codec import stamp

Obj = dict[str, Any]
EventType = Literal['ADDED', 'MODIFIED', 'DELETED']
VIEWS_MAX = 16
"""Versions in which one custom resource is kept; definitions that change leave old ones behind."""
Render = Callable[['Entry'], bytes]
"""Another representation of an entry, for example a Table row."""


class Entry:
    """One version of one object: its stored bytes, its served bytes, and the decoded object once somebody asked."""

    __slots__ = ('_obj', '_raw', '_served', '_views', 'key', 'rv', 'value')

    def __init__(self, key: str, value: bytes, rv: int) -> None:
        self.key = key
        self.value = value
        self.rv = rv
        self._raw: bytes | None = None
        self._obj: Obj | None = None
        self._views: dict[str, bytes] | None = None
        self._served: dict[object, Entry] | None = None

    @property
    def raw(self) -> bytes:
        """JSON with resourceVersion; shared by all readers."""
        raw = self._raw
        if raw is None:
            raw = self._raw = stamp(self.value, self.rv)
        return raw

    @property
    def obj(self) -> Obj:
        """The decoded object, with resourceVersion. Shared: never change it."""
        obj = self._obj
        if obj is None:
            obj = self._obj = orjson.loads(self.raw)
        return obj

    @property
    def decoded(self) -> Obj:
        """A fresh object of the stored value alone, without resourceVersion."""
        obj: Obj = orjson.loads(self.value)
        return obj

    @property
    def versioned(self) -> Versioned:
        return Versioned(self.key, self.value, self.rv)

    def view(self, name: str, render: Render) -> bytes:
        """A rendered form, made once per `name`."""
        views = self._views
        if views is None:
            views = self._views = {}
        found = views.get(name)
        if found is None:
            found = views[name] = render(self)
        return found

    def served_as(self, view: object) -> Entry | None:
        """What `keep_served` kept under this view."""
        return None if self._served is None else self._served.get(view)

    def keep_served(self, view: object, entry: Entry) -> None:
        """Remember how this entry looks in another version. A view replaces the oldest beyond VIEWS_MAX."""
        served = self._served
        if served is None:
            served = self._served = {}
        elif len(served) >= VIEWS_MAX:
            del served[next(iter(served))]
        served[view] = entry


class CacheEvent:
    """One change of one object; `entry` is the new version, or for a deletion the last one under the new revision."""

    __slots__ = ('_frames', '_gone', 'entry', 'prev', 'rv', 'type')

    def __init__(self, kind: EventType, entry: Entry, prev: Entry | None) -> None:
        self.type = kind
        self.entry = entry
        self.prev = prev
        self.rv = entry.rv
        self._frames: dict[tuple[str, str], bytes] = {}
        self._gone: Entry | None = None

    @property
    def gone(self) -> Entry:
        """The previous version under this event's revision: what a watcher sees when an object leaves its selector."""
        if self.type == 'DELETED' or self.prev is None:
            return self.entry
        if self._gone is None:
            self._gone = Entry(self.prev.key, self.prev.value, self.rv)
        return self._gone

    def frame(self, kind: EventType, view: str, render: Render | None) -> bytes:
        """The watch line `{"type":…,"object":…}\\n`, made once per event type and representation."""
        frames = self._frames
        found = frames.get((kind, view))
        if found is None:
            entry = self.gone if kind == 'DELETED' else self.entry
            body = entry.raw if render is None else entry.view(view, render)
            found = frames[kind, view] = frame(kind, body)
        return found


def frame(kind: str, body: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (kind.encode(), body)
