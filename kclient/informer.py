"""Informers: one shared, indexed cache per (resource, namespace, selectors), kept in step by a reflector.

Handlers run synchronously on the event loop right after the store changed; they must be quick (enqueue a key).
After a relist they hear exactly the differences, deletions included, so a lost watch event is repaired there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping
from typing import Any, NoReturn

import structlog

from kclient.api import Client
from kclient.errors import BadRequest, ClientError, Expired, Invalid
from kclient.model import Obj
from kclient.reflector import Begin, Commit, Delete, List, Lost, Put, Reflector, Refused, StoreOp, Stream, Watch
from kcore.backoff import Backoff
from kcore.meta.gvk import Resource
from kcore.meta.objects import key_of
from kcore.meta.sharing import share
from kcore.tasks import start_restarting, stop

log = structlog.get_logger('kclient.informer')

RELIST_BASE_S = 0.1
RELIST_CAP_S = 5.0
"""Longest pause between attempts to reach the API."""
INITIAL_EVENTS_S = 60.0
"""A streamed list that is not complete after this is asked for in pages: some servers never say where it ends."""
HEALTHY_S = 1.0
"""A watch that lasted this long was fine, even without an event."""

Handler = Callable[[Obj | None, Obj | None], None]
"""(old, new): old is None for a new object, new is None for a deleted one."""
Objects = list[Obj]
IndexFn = Callable[[Obj], Iterable[str]]
Transform = Callable[[Obj], None]
"""Changes an object before it is kept, to make it smaller; it must keep name, namespace, uid and resourceVersion."""


def by_owner_uid(obj: Obj) -> Iterable[str]:
    """Index function: uids of all owners."""
    return [str(ref.get('uid')) for ref in obj['metadata'].get('ownerReferences') or ()]


def by_namespace(obj: Obj) -> Iterable[str]:
    """Index function: the object's namespace."""
    return (str(obj['metadata'].get('namespace') or ''),)


def strip_managed_fields(obj: Obj) -> None:
    """A Transform: who set which field is half of most objects, and only the server needs it."""
    obj['metadata'].pop('managedFields', None)


class Store:
    """Objects by key, with indexes. What it hands out is shared: read-only."""

    def __init__(self, indexers: Mapping[str, IndexFn]) -> None:
        self._objects: dict[str, Obj] = {}
        self._indexers: dict[str, IndexFn] = dict(indexers)
        self._indexes: dict[str, dict[str, dict[str, None]]] = {name: {} for name in indexers}

    def get(self, key: str) -> Obj | None:
        return self._objects.get(key)

    def list(self) -> Objects:
        return [*self._objects.values()]

    def keys(self) -> KeysView[str]:
        return self._objects.keys()

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[str]:
        """Keys."""
        return iter(self._objects)

    def by_index(self, name: str, value: str) -> Objects:
        """Objects for which indexer `name` yields `value`. Raises KeyError for an unknown index."""
        return [self._objects[key] for key in self._indexes[name].get(value, ())]

    def add_indexer(self, name: str, fn: IndexFn) -> None:
        """Idempotent by name; indexes what is already there."""
        if name in self._indexers:
            return
        self._indexers[name], self._indexes[name] = fn, {}
        for key, obj in self._objects.items():
            self._enter(name, key, obj)

    def put(self, obj: Obj) -> Obj | None:
        """Returns what was there before."""
        key = key_of(obj)
        old = self._objects.get(key)
        if old is not None:
            self._unindex(key, old)
        self._objects[key] = obj
        for name in self._indexers:
            self._enter(name, key, obj)
        return old

    def remove(self, key: str) -> Obj | None:
        old = self._objects.pop(key, None)
        if old is not None:
            self._unindex(key, old)
        return old

    def _enter(self, name: str, key: str, obj: Obj) -> None:
        for value in self._indexers[name](obj):
            self._indexes[name].setdefault(value, {})[key] = None

    def _unindex(self, key: str, obj: Obj) -> None:
        for name, fn in self._indexers.items():
            index = self._indexes[name]
            for value in fn(obj):
                keys = index.get(value)
                if keys is not None:
                    keys.pop(key, None)
                    if not keys:
                        del index[value]


class Informer:
    """Keeps `store` equal to what the API holds. `run` it in a task; `synced` returns after the first full list."""

    def __init__(
        self,
        client: Client,
        r: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = '',
        field_selector: str = '',
        indexers: Mapping[str, IndexFn] | None = None,
        metadata_only: bool = False,
        transform: Transform | None = None,
    ) -> None:
        self.resource = r
        self.store = Store(indexers or {})
        self._transform, self._latest = transform, dict[str, Any]()
        self._metadata_only = metadata_only
        self._client, self._namespace = client, namespace
        self._label_selector, self._field_selector = label_selector, field_selector
        self._handlers: list[Handler] = []
        self._staged: dict[str, Obj] | None = None
        self._synced = asyncio.Event()
        self.resource_version = ''
        """Revision of the latest complete list."""
        self.seen_revision = 0
        """The store holds everything that happened to this resource up to here."""

    def on_change(self, handler: Handler) -> None:
        """Call `handler(old, new)` on every change; objects already known are told at once as new."""
        self._handlers.append(handler)
        for obj in self.store.list():
            _call(handler, None, obj)

    @property
    def has_synced(self) -> bool:
        return self._synced.is_set()

    async def synced(self) -> None:
        await self._synced.wait()

    async def run(self) -> NoReturn:
        """List, watch, for ever; failures are retried with pauses of 0.1 s up to 5 s."""
        machine, backoff = Reflector(), Backoff(RELIST_BASE_S, RELIST_CAP_S, self._client.env.rng)
        while True:
            began = self._client.env.clock.monotonic()
            progressed = False
            try:
                progressed = await self._step(machine)
            except ClientError as e:
                gone = isinstance(e, Expired)
                machine.feed(Lost(gone=gone))
                say = log.debug if gone else log.warning
                say('list or watch failed', kind=self.resource.qualified, err=f'{type(e).__name__}: {e}')
            # A server that ends every call at once without news must not be asked in a tight loop.
            if progressed or self._client.env.clock.monotonic() - began >= HEALTHY_S:
                backoff.reset()
            else:
                await asyncio.sleep(backoff.next())

    async def _step(self, machine: Reflector) -> bool:
        """One call of the machine. True when it made progress."""
        call = machine.next_call()
        if isinstance(call, List):
            page = await self._client.list(
                self.resource, self._namespace, label_selector=self._label_selector,
                field_selector=self._field_selector, limit=call.limit, continue_=call.continue_,
                metadata_only=self._metadata_only,
            )  # fmt: skip
            self.apply(machine.feed(page))
            return True
        try:
            return await self._follow(machine, call)
        except (BadRequest, Invalid):
            if not isinstance(call, Stream):
                raise
            machine.feed(Refused())
            return True

    async def _follow(self, machine: Reflector, call: Stream | Watch) -> bool:
        """A watch until it ends. True when it brought something."""
        streams = isinstance(call, Stream)
        events = self._client.watch(
            self.resource, self._namespace, resource_version='' if isinstance(call, Stream) else call.resource_version,
            label_selector=self._label_selector, field_selector=self._field_selector,
            initial_events=streams, metadata_only=self._metadata_only,
        )  # fmt: skip
        progressed = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INITIAL_EVENTS_S if streams else None) as patience, contextlib.aclosing(events):
                async for event in events:
                    self.apply(machine.feed(event))
                    if machine.in_step and patience.when() is not None:
                        patience.reschedule(None)
                    progressed = progressed or event.type != 'ERROR'
                    if event.type == 'ERROR':
                        break
        machine.feed(Lost())
        return progressed

    def apply(self, ops: Iterable[StoreOp]) -> None:
        """Carry the machine's operations out on the store and tell the handlers."""
        for op in ops:
            match op:
                case Begin():
                    self._staged = {}
                case Put(object=obj) if self._staged is not None:
                    self._staged[key_of(obj)] = self._condensed(obj)
                case Put(object=obj):
                    self._put(self._condensed(obj))
                    self._see(obj['metadata'].get('resourceVersion'))
                case Delete(object=obj) if self._staged is not None:
                    self._staged.pop(key_of(obj), None)
                case Delete(object=obj):
                    self._remove(key_of(obj))
                    self._see(obj['metadata'].get('resourceVersion'))
                case Commit(resource_version=rv):
                    self._commit(rv)

    def _condensed(self, obj: Obj) -> Obj:
        """Transformed; sharing what it can with its last version, else with the object before it, a sibling often."""
        if self._transform is not None:
            self._transform(obj)
        known = self.store.get(key_of(obj))
        self._latest = share(obj, known if known is not None else self._latest)
        return self._latest

    def _commit(self, resource_version: str) -> None:
        staged, self._staged = self._staged or {}, None
        for key in self.store.keys() - staged.keys():
            self._remove(key)
        for obj in staged.values():
            self._put(obj)
        self.resource_version = resource_version
        self._see(resource_version)
        self._synced.set()

    def _see(self, revision: str | None) -> None:
        if revision and revision.isdigit():
            self.seen_revision = max(self.seen_revision, int(revision))

    def _put(self, obj: Obj) -> None:
        known = self.store.get(key_of(obj))
        if known is not None and known['metadata'].get('resourceVersion') == obj['metadata'].get('resourceVersion'):
            return
        if known is not None and known['metadata'].get('uid') != obj['metadata'].get('uid'):
            self._remove(key_of(obj))  # deleted and created anew while nobody looked
        old = self.store.put(obj)
        for handler in self._handlers:
            _call(handler, old, obj)

    def _remove(self, key: str) -> None:
        old = self.store.remove(key)
        if old is not None:
            for handler in self._handlers:
                _call(handler, old, None)


def _call(handler: Handler, old: Obj | None, new: Obj | None) -> None:
    """A handler's fault must not stop the cache that everybody shares."""
    try:
        handler(old, new)
    except Exception as e:
        log.error('informer handler failed', err=f'{type(e).__name__}: {e}', exc_info=e)


class InformerSet:
    """Shared informers: asking twice for the same (resource, namespace, selectors) gives the same one.

    transform: of all of them.
    """

    def __init__(self, client: Client, *, transform: Transform | None = None) -> None:
        self._client, self._transform = client, transform
        self._informers: dict[tuple[Resource, str | None, str, str, bool], Informer] = {}
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[Informer, asyncio.Task[NoReturn]] = {}

    def get(
        self,
        r: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = '',
        field_selector: str = '',
        indexers: Mapping[str, IndexFn] | None = None,
        metadata_only: bool = False,
    ) -> Informer:
        """An informer; it runs from `start` on, or at once when the set was started already.

        metadata_only: its objects may be without spec and status (PartialObjectMetadata). One that somebody else
        keeps whole serves as well.
        """
        whole = (r, namespace, label_selector, field_selector, False)
        identity = (*whole[:4], metadata_only and whole not in self._informers)
        informer = self._informers.get(identity)
        if informer is None:
            informer = Informer(
                self._client, r, namespace=namespace, label_selector=label_selector, field_selector=field_selector,
                metadata_only=identity[-1], transform=self._transform,
            )  # fmt: skip
            self._informers[identity] = informer
            if self._group is not None:
                self._run(self._group, informer)
        for name, fn in (indexers or {}).items():
            informer.store.add_indexer(name, fn)
        return informer

    def start(self, group: asyncio.TaskGroup) -> None:
        """Run every informer as a restarting task of `group`."""
        self._group = group
        for informer in self._informers.values():
            self._run(group, informer)

    async def synced(self) -> None:
        """All informers asked for so far have listed once."""
        for informer in [*self._informers.values()]:
            await informer.synced()

    def __iter__(self) -> Iterator[Informer]:
        return iter([*self._informers.values()])

    def _run(self, group: asyncio.TaskGroup, informer: Informer) -> None:
        name = f'informer {informer.resource.qualified}'
        self._tasks[informer] = start_restarting(group, name, informer.run, self._client.env)

    async def drop(self, r: Resource) -> None:
        """Stop and forget every informer of `r` (the kind is no longer served); their stores stay readable."""
        for identity in [i for i in self._informers if i[0] == r]:
            await stop(self._tasks.pop(self._informers.pop(identity), None))


__all__ = [
    'Handler', 'Informer', 'InformerSet', 'Store', 'by_namespace', 'by_owner_uid', 'key_of', 'strip_managed_fields',
]  # fmt: skip
