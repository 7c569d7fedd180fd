"""The LIST+WATCH machine, pure: it says what to ask next and turns each reply into store operations.

What exists comes first through a watch with `sendInitialEvents`, which ends in a marked bookmark and then goes on as
the watch: one request, no pages, nothing held twice. A server that refuses that, or breaks it off, is asked for a list.
Both are visible downstream as `Begin … Put … Commit`, so that a store replaces its content atomically and can tell
what vanished meanwhile. Theory: kube-rs `kube-runtime/src/watcher.rs`; client-go `tools/cache/reflector.go`; KEP-3157.
Differs: every list asks for the latest state (no `resourceVersion=0`), since an answer from the past, after a failover
to a lagging server, would make a controller act on pods that are long gone.
"""

from __future__ import annotations

from dataclasses import dataclass

from kclient.model import Obj, ObjectList, WatchEvent

PAGE_ITEMS = 500
"""Objects asked for in one page of a list."""
INITIAL_END = 'k8s.io/initial-events-end'
"""Annotation of the bookmark after which a streamed list is complete."""


@dataclass(frozen=True, slots=True)
class List:
    """Ask for a page."""

    limit: int
    continue_: str = ''


@dataclass(frozen=True, slots=True)
class Watch:
    """Watch from just after `resource_version`."""

    resource_version: str


@dataclass(frozen=True, slots=True)
class Stream:
    """Watch with everything that exists first."""


Call = List | Stream | Watch


@dataclass(frozen=True, slots=True)
class Lost:
    """The call failed or the watch ended; `gone` when the server no longer knows the revision (410)."""

    gone: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The server does not stream lists."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A full list starts; what follows up to Commit replaces everything."""


@dataclass(frozen=True, slots=True)
class Put:
    object: Obj


@dataclass(frozen=True, slots=True)
class Delete:
    object: Obj


@dataclass(frozen=True, slots=True)
class Commit:
    """The list is complete; objects not Put since Begin do not exist any more."""

    resource_version: str


StoreOp = Begin | Put | Delete | Commit


@dataclass(frozen=True, slots=True)
class Empty:
    """Nothing known."""


@dataclass(frozen=True, slots=True)
class Listing:
    """In the middle of a list of several pages."""

    continue_: str


@dataclass(frozen=True, slots=True)
class Streaming:
    """In the middle of a streamed list."""


@dataclass(frozen=True, slots=True)
class Watching:
    """In step up to `resource_version`."""

    resource_version: str


State = Empty | Listing | Streaming | Watching


class Reflector:
    """One resource's machine. `next_call` and `feed` alternate; a watch's events are fed one by one."""

    def __init__(self, *, streams: bool = True) -> None:
        self.state: State = Empty()
        self._streams = streams
        self._broken = False
        """The last streamed list did not arrive whole: the next one comes in pages."""

    @property
    def in_step(self) -> bool:
        return isinstance(self.state, Watching)

    def next_call(self) -> Call:
        match self.state:
            case Listing(continue_=token):
                return List(PAGE_ITEMS, token)
            case Watching(resource_version=rv):
                return Watch(rv)
            case _:
                return Stream() if self._streams and not self._broken else List(PAGE_ITEMS)

    def feed(self, reply: ObjectList | WatchEvent | Lost | Refused) -> list[StoreOp]:
        """Advance. Any reply is legal in any state: one that was not asked for is ignored."""
        match reply, self.state:
            case Refused(), _:
                self._streams, self.state = False, Empty()
            case Lost(gone=gone), Empty() | Streaming():
                self._broken, self.state = not gone, Empty()
            case Lost(gone=True), _:
                self.state = Empty()
            case ObjectList() as page, Empty() | Listing():
                return self._page(page)
            case WatchEvent() as event, Watching():
                return self._event(event)
            case WatchEvent() as event, Empty() | Streaming():
                return self._initial(event)
        return []

    def _page(self, page: ObjectList) -> list[StoreOp]:
        ops: list[StoreOp] = [Begin()] if isinstance(self.state, Empty) else []
        ops += [Put(o) for o in page.items]
        if page.continue_:
            self.state = Listing(page.continue_)
        else:
            self.state, self._broken = Watching(page.resource_version), False
            ops.append(Commit(page.resource_version))
        return ops

    def _initial(self, event: WatchEvent) -> list[StoreOp]:
        if event.type == 'ERROR':
            return self.feed(Lost(gone=event.object.get('code') == 410))
        ops: list[StoreOp] = [Begin()] if isinstance(self.state, Empty) else []
        self.state = Streaming()
        if event.type != 'BOOKMARK':
            return [*ops, _change(event)]
        meta = event.object['metadata']
        if (meta.get('annotations') or {}).get(INITIAL_END) == 'true':
            self.state = Watching(str(meta['resourceVersion']))
            ops.append(Commit(str(meta['resourceVersion'])))
        return ops

    def _event(self, event: WatchEvent) -> list[StoreOp]:
        if event.type == 'ERROR':
            return self.feed(Lost(gone=event.object.get('code') == 410))
        self.state = Watching(str(event.object['metadata']['resourceVersion']))
        return [] if event.type == 'BOOKMARK' else [_change(event)]


def _change(event: WatchEvent) -> StoreOp:
    return Delete(event.object) if event.type == 'DELETED' else Put(event.object)
