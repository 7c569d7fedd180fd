"""What a controller is: one decorated async function over keys, and what it may use.

Level-triggered: the function gets a key, never an event, and works from the caches' present state. It returns None
(done), `Result(after_s=…)` (look again later), raises `Terminal` (retrying cannot help) or anything else (back-off).
Theory: controller-runtime pkg/reconcile/reconcile.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast

from kclient.api import Client
from kclient.discovery import Discovery, discover
from kclient.events import EventRecorder
from kclient.informer import IndexFn, Informer, InformerSet, by_namespace
from kclient.model import Obj
from kclient.queue import WorkQueue
from kcontrol.claim import selects
from kcontrol.config import ControlConfig
from kcontrol.expectations import Expectations
from kcontrol.figures import Figures
from kcore.env import Env
from kcore.meta.gvk import Resource
from kcore.meta.objects import controller_of, key_of, namespace_of
from kcore.meta.patch import two_way_merge_patch

CONTROLLER_INDEX = 'controller'
NAMESPACE_INDEX = 'namespace'
DISCOVERY_S = 30.0
"""How long the server's kinds, once asked for, are believed."""
Objects = list[Obj]


@dataclass(frozen=True, slots=True)
class Result:
    """Reconcile this key again after so many seconds, even if nothing changes."""

    after_s: float


class Terminal(Exception):
    """This key cannot succeed until its object changes."""


Reconcile = Callable[['Ctx', str], Awaitable[Result | None]]
Keys = Callable[['Ctx', Obj | None, Obj | None], Iterable[str]]
"""(context, old, new) → keys of the primary resource to look at."""


def own_key(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """The changed object's own key."""
    obj = new if new is not None else old
    return (key_of(obj),) if obj is not None else ()


@dataclass(frozen=True, slots=True)
class Watching:
    """Another resource whose changes concern the controller."""

    resource: Resource
    keys: Keys
    indexers: dict[str, IndexFn] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Controller:
    """A declared controller; `manager` runs it."""

    name: str
    primary: Resource
    reconcile: Reconcile
    owns: tuple[Resource, ...] = ()
    watches: tuple[Watching, ...] = ()
    workers: int = 1
    concerns: Keys = own_key
    """Keys that a change of the primary resource brings."""

    @property
    def resources(self) -> tuple[Resource, ...]:
        return (self.primary, *self.owns, *(w.resource for w in self.watches))


@dataclass(frozen=True, slots=True)
class Loop:
    """A controller that is no function of one key: `run` lasts as long as the leadership."""

    name: str
    run: Callable[[Ctx], Awaitable[object]]
    resources: tuple[Resource, ...] = ()
    """What it cannot do without."""


def controller(
    name: str,
    *,
    primary: Resource,
    owns: Iterable[Resource] = (),
    watches: Iterable[Watching] = (),
    workers: int = 1,
    concerns: Keys | None = None,
) -> Callable[[Reconcile], Controller]:
    """Declare the function below as a controller. `concerns`: instead of every change of the primary resource."""

    def declare(reconcile: Reconcile) -> Controller:
        keys = concerns if concerns is not None else own_key
        return Controller(name, primary, reconcile, tuple(owns), tuple(watches), workers, keys)

    return declare


def loop(name: str, *, needs: Iterable[Resource] = ()) -> Callable[[Callable[[Ctx], Awaitable[object]]], Loop]:
    """Declare the function below as a controller that runs by itself. `needs`: what it reads from caches."""
    return lambda run: Loop(name, run, tuple(needs))


def by_controller(obj: Obj) -> Iterable[str]:
    """Index function: uid of the controlling owner, or '' for an orphan, within its namespace."""
    ref = controller_of(obj)
    return (str(ref['uid']) if ref else f'orphan/{namespace_of(obj)}',)


@dataclass(slots=True)
class Ctx:
    """Everything a reconcile may use. One for each controller and term of leadership."""

    client: Client
    """Refuses writes when the leadership is in doubt."""
    env: Env
    informers: InformerSet
    recorder: EventRecorder
    config: ControlConfig
    queue: WorkQueue[str]
    name: str = ''
    primary: Resource | None = None
    """Whose keys the controller gets; None for a Loop."""
    expectations: Expectations = field(default_factory=Expectations)
    figures: Figures = field(default_factory=Figures)
    state: dict[str, Any] = field(default_factory=dict)
    """A controller's own memory for one term of leadership."""

    def now(self) -> datetime:
        return self.env.clock.wall()

    def informer(self, r: Resource) -> Informer:
        return self.informers.get(r, indexers={CONTROLLER_INDEX: by_controller, NAMESPACE_INDEX: by_namespace})

    def get(self, r: Resource, key: str) -> Obj | None:
        """From the cache: read-only."""
        return self.informer(r).store.get(key)

    def list(self, r: Resource) -> Objects:
        return self.informer(r).store.list()

    def in_namespace(self, r: Resource, namespace: str) -> Objects:
        return self.informer(r).store.by_index(NAMESPACE_INDEX, namespace)

    def owned(self, r: Resource, owner: Obj) -> Objects:
        """Objects whose controller is `owner`."""
        return self.informer(r).store.by_index(CONTROLLER_INDEX, str(owner['metadata']['uid']))

    def orphans(self, r: Resource, namespace: str) -> Objects:
        """Objects of the namespace that no controller owns."""
        return self.informer(r).store.by_index(CONTROLLER_INDEX, f'orphan/{namespace}')

    async def discovery(self) -> Discovery:
        """The kinds that the server has, as of at most DISCOVERY_S ago. Raises ApiError."""
        now = self.env.clock.monotonic()
        known = self.state.get('discovery')
        if known is None or now - known[0] > DISCOVERY_S:
            known = self.state['discovery'] = now, await discover(self.client)
        return cast('Discovery', known[1])

    def event(self, obj: Obj, type_: Literal['Normal', 'Warning'], reason: str, message: str) -> None:
        self.recorder.event(obj, type_, reason, message)

    async def create(self, r: Resource, obj: Obj, *, owner: str | None = None) -> Obj:
        """Create; with `owner` (a key of this controller) the cache must show it before `caught_up(owner)`."""
        made = await self.client.create(r, obj)
        if owner is not None:
            self.expectations.created(owner, made, self.env.clock.monotonic())
        return made

    async def delete(self, r: Resource, obj: Obj, *, owner: str | None = None) -> None:
        """Delete exactly this object (by uid). Raises NotFound when it is gone, Conflict when it was replaced."""
        meta = obj['metadata']
        await self.client.delete(r, meta['name'], meta.get('namespace'), uid=meta['uid'])
        if owner is not None:
            self.expectations.deleted(owner, obj, self.env.clock.monotonic())

    def sees_itself(self, key: str) -> bool:
        """Whether the cache shows what this controller last wrote to the object of `key` itself."""
        if self.primary is None:
            return True
        informer = self.informer(self.primary)
        return self.expectations.shown(key, informer.store, informer.seen_revision, self.env.clock.monotonic())

    def _wrote(self, r: Resource, obj: Obj) -> None:
        if r == self.primary:
            self.expectations.wrote(key_of(obj), obj, self.env.clock.monotonic())

    def caught_up(self, owner: str, r: Resource) -> bool:
        """Whether the cache of `r` shows all that this controller wrote for `owner`."""
        informer = self.informer(r)
        return self.expectations.satisfied(owner, informer.store, informer.seen_revision, self.env.clock.monotonic())

    async def patch(self, r: Resource, obj: Obj, change: Obj, *, conditional: bool = True) -> Obj:
        """Merge `change` into `obj`; `conditional` on the version that the caller saw (raises Conflict)."""
        meta = obj['metadata']
        new = await self.client.patch(r, meta['name'], _pinned(obj, change, conditional), meta.get('namespace'))
        self._wrote(r, new)
        return new

    async def patch_status(self, r: Resource, obj: Obj, status: Obj, *, conditional: bool = True) -> bool:
        """Bring `obj.status` to `status`; fields that `status` lacks are removed. False when nothing differs."""
        change = two_way_merge_patch({'status': obj.get('status') or {}}, {'status': status})
        if not change:
            return False
        meta = obj['metadata']
        body = _pinned(obj, change, conditional)
        self._wrote(r, await self.client.patch(r, meta['name'], body, meta.get('namespace'), subresource='status'))
        return True


def _pinned(obj: Obj, change: Obj, conditional: bool) -> Obj:
    """The patch, bound to the object's identity and, if wanted, to its version."""
    meta = obj['metadata']
    pin = {'uid': meta['uid']} | ({'resourceVersion': meta['resourceVersion']} if conditional else {})
    return {**change, 'metadata': {**(change.get('metadata') or {}), **pin}}


def controller_keys(kind: Resource) -> Keys:
    """Keys of the controlling owners (before and after) that are of `kind`, or of every orphan's possible adopters."""

    def keys(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
        found: dict[str, None] = {}
        for obj in (old, new):
            ref = controller_of(obj) if obj is not None else None
            if obj is None or ref is None or ref.get('kind') != kind.kind or ref.get('apiVersion') != kind.api_version:
                continue
            found[f'{namespace_of(obj)}/{ref["name"]}' if kind.namespaced else str(ref['name'])] = None
        if new is not None and controller_of(new) is None and not new['metadata'].get('deletionTimestamp'):
            found.update(dict.fromkeys(_adopters(c, kind, new)))
        return found

    return keys


def _adopters(c: Ctx, kind: Resource, orphan: Obj) -> Iterable[str]:
    """Owners of the namespace whose selector matches an orphan."""
    return (key_of(o) for o in c.in_namespace(kind, namespace_of(orphan)) if selects(o, orphan))
