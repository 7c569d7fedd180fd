"""The generic registry: create, update and delete as every kind does them. Where a 409 comes from.

The order of a write, for every kind: place and stamp metadata → default → mutating admission → default again →
the kind's `prepare` → metadata rules → the kind's `validate` → validating admission → addresses → the store.
Updates run that inside the store's optimistic loop, so all of it is repeatable.
Source: apiserver pkg/registry/generic/registry/store.go, pkg/registry/rest/{create,update,delete}.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from kapi.admission.chain import Attributes, Chain, Operation
from kapi.authn.user import User
from kapi.errors import AlreadyExists, BadRequest, Conflict, InvalidObject, NotFound
from kapi.registry import deletion, metadata
from kapi.registry.catalog import key_prefix
from kapi.registry.kind import Kind
from kapi.registry.options import DeleteOptions, WriteOptions, admission_options
from kapi.registry.ownership import Ownership
from kapi.registry.strategy import Invalid
from kapi.storage.base import KeyExists, KeyMissing, RevisionConflict, Versioned
from kapi.storage.cache import Cache
from kapi.storage.codec import clone, decode, encode
from kapi.storage.entries import Entry
from kcore.env import Env
from kcore.meta.gvk import Resource
from kcore.meta.schema import Node

Obj = dict[str, Any]
Transform = Callable[[Obj], Awaitable[Obj]]
"""From a private copy of the stored object to the wanted one; may run several times."""

GENERATE_ATTEMPTS_MAX = 8
STATUS_LIKE = frozenset({'status', 'approval'})
"""Subresources through which only `status` is written."""
DELETE_ATTEMPTS_MAX = 20


@dataclass(slots=True)
class Write:
    """Who writes, how, and where warnings go."""

    user: User
    options: WriteOptions = field(default_factory=WriteOptions)
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    """Of admission, for the audit log."""
    subresource: str = ''
    operation: str = 'Update'
    """Of managed fields: Update or Apply."""
    admitted: bool = False
    """The handler has let admission judge the request's own body (a Scale, an Eviction) instead of the object."""
    asked: Kind | None = None
    """The kind of the URL, where that is a view of the one that is written."""
    direct: bool = False
    """The handler itself decides what may change (binding, finalize): the kind's update rules do not apply."""


class Hooks(Protocol):
    """What a kind needs of the store around a write (Service addresses)."""

    async def claim(self, new: Obj, old: Obj | None, *, dry_run: bool) -> list[str]:
        """Fill in and reserve; returns the keys newly reserved, to be given back if the write fails."""

    async def release(self, keys: list[str]) -> None: ...

    def held(self, obj: Obj) -> list[str]:
        """Keys that a stored object holds."""


class _Finished(Exception):
    """An update took away the last thing that a deletion waited for."""

    def __init__(self, current: Versioned, result: Obj) -> None:
        super().__init__('finished')
        self.current = current
        self.result = result


class _Moved(Exception):
    """The object changed between the decision to remove it and the removal."""


class Registry:
    """All kinds' writes, over one cache."""

    def __init__(self, cache: Cache, env: Env, admission: Chain, node_of: Callable[[Resource], Node]) -> None:
        self.cache = cache
        self.env = env
        self.admission = admission
        self.ownership = Ownership(env, node_of)
        self.hooks: dict[str, Hooks] = {}
        """By qualified resource name."""
        self.ttl_s: dict[str, int] = {}
        """Seconds to live by qualified resource name (Events)."""

    def key(self, kind: Kind, namespace: str, name: str) -> str:
        prefix = key_prefix(kind.storage or kind.resource)
        return f'{prefix}{namespace}/{name}' if kind.resource.namespaced else prefix + name

    # — read —

    async def get(self, kind: Kind, namespace: str, name: str, *, any_version: bool = False) -> Entry:
        """Linearizable unless `any_version`. Raises NotFound."""
        if not any_version:
            await self.cache.fresh()
        entry = self.cache.peek(self.key(kind, namespace, name))
        if entry is None:
            raise NotFound.of(kind.resource, name)
        return await self._seen(kind, entry)

    async def _seen(self, kind: Kind, entry: Entry) -> Entry:
        """An entry in the version of `kind`."""
        return entry if kind.conversion is None else (await kind.conversion.served([entry]))[0]

    async def _decoded(self, kind: Kind, current: Versioned) -> Obj:
        """A stored value as an object in the version of `kind` that may be changed."""
        if kind.conversion is None:
            return decode(current.value, current.rv)
        cached = self.cache.peek(current.key)
        entry = cached if cached is not None and cached.rv == current.rv else Entry(*_parts(current))
        return clone((await self._seen(kind, entry)).obj)

    @staticmethod
    async def _encoded(kind: Kind, obj: Obj) -> bytes:
        return encode(obj if kind.conversion is None else await kind.conversion.stored(obj))

    # — create —

    async def create(self, kind: Kind, namespace: str, obj: Obj, write: Write) -> Entry:
        """Raises AlreadyExists, InvalidObject, and what admission raises. `obj` is changed."""
        meta = metadata.place(kind, obj, namespace)
        base = '' if meta.get('name') else meta.get('generateName') or ''
        attempts = GENERATE_ATTEMPTS_MAX if base else 1
        for attempt in range(1, attempts + 1):
            if base:
                meta['name'] = metadata.generated_name(base, self.env.rng)
            try:
                return await self._create_once(kind, namespace, obj, write)
            except AlreadyExists:
                if attempt == attempts:
                    raise
        raise AssertionError('unreachable')

    async def _create_once(self, kind: Kind, namespace: str, obj: Obj, write: Write) -> Entry:
        strategy = kind.strategy
        if obj['metadata'].get('resourceVersion') not in {None, '', '0'}:
            raise BadRequest('resourceVersion should not be set on objects to be created')
        metadata.stamp_new(obj, self.env.new_uid(), self.env.clock.wall())
        if kind.has_status and not strategy.status_on_create:
            obj.pop('status', None)
        strategy.default(obj)
        attributes = self._attributes('CREATE', kind, namespace, write, obj=obj, old=None)
        await self.admission.mutate(attributes)
        strategy.default(obj)
        strategy.prepare(obj, None)
        if kind.has_status and strategy.first_status is not None:
            obj.setdefault('status', clone(dict(strategy.first_status)))
        if strategy.generation and 'spec' in obj:
            obj['metadata']['generation'] = 1
        strategy.observe(obj)
        self._refuse(kind, obj, [*metadata.validate_new(kind, obj), *strategy.validate(obj, None)])
        await self.admission.validate(attributes)
        write.warnings.extend(strategy.warnings(obj, None))
        self.ownership.record(kind, obj, None, write)
        name = obj['metadata']['name']
        key = self.key(kind, namespace, name)
        hooks = self.hooks.get(kind.resource.qualified)
        claimed = await hooks.claim(obj, None, dry_run=write.options.dry_run) if hooks else []
        try:
            if write.options.dry_run:
                if self.cache.peek(key) is not None:
                    raise KeyExists(key)
                return Entry(key, encode(obj), 0)
            value = await self._encoded(kind, obj)
            stored = await self.cache.create(key, value, ttl_s=self.ttl_s.get(kind.resource.qualified, 0))
        except BaseException as e:
            await attributes.failed()
            if hooks and claimed:
                await hooks.release(claimed)
            if isinstance(e, KeyExists):
                raise AlreadyExists.of(kind.resource, name) from e
            raise
        return await self._seen(kind, Entry(key, stored.value, stored.rv))

    # — update —

    async def update(self, kind: Kind, namespace: str, name: str, transform: Transform, write: Write) -> Entry:
        """Change the stored object by `transform`. Raises NotFound, Conflict, InvalidObject, and what both raise."""
        key = self.key(kind, namespace, name)
        hooks = self.hooks.get(kind.resource.qualified) if not write.subresource else None
        while True:
            claims: list[str] = []
            before: list[str] = []

            async def change(current: Versioned) -> bytes:
                old = await self._decoded(kind, current)
                new = await transform(await self._decoded(kind, current))
                new = await self._updated(kind, (namespace, name), new, old, write)
                if deletion.finished(kind, new):
                    raise _Finished(current, new)
                if hooks:
                    claims.extend(await hooks.claim(new, old, dry_run=write.options.dry_run))  # noqa: B023
                    before[:] = hooks.held(old)  # noqa: B023
                if write.options.dry_run:
                    return encode(new)
                return _unless_same(await self._encoded(kind, new), current.value)

            try:
                entry = await self._store_update(key, change, kind, write)
            except _Finished as done:
                removed = await self._remove(kind, key, done, write)
                if removed is not None:
                    return removed
                continue
            except BaseException as e:
                if hooks and claims:
                    await hooks.release(claims)
                if isinstance(e, KeyMissing):
                    raise NotFound.of(kind.resource, name) from e
                if isinstance(e, RevisionConflict):
                    raise Conflict.of(kind.resource, name, 'the object kept changing; please try again') from e
                raise
            if hooks and not write.options.dry_run:
                # What was given up, and what an attempt that lost its race had reserved.
                kept = set(hooks.held(served(entry)))
                await hooks.release([k for k in dict.fromkeys([*before, *claims]) if k not in kept])
            return entry

    async def _store_update(
        self, key: str, change: Callable[[Versioned], Awaitable[bytes]], kind: Kind, write: Write
    ) -> Entry:
        if write.options.dry_run:
            current = await self.cache.get(key)
            return Entry(key, await change(current), current.rv)
        ttl_s = self.ttl_s.get(kind.resource.qualified, 0)
        stored = await self.cache.update(key, change, ttl_s=ttl_s)
        return await self._seen(kind, Entry(key, stored.value, stored.rv))

    async def _updated(self, kind: Kind, place: tuple[str, str], new: Obj, old: Obj, write: Write) -> Obj:
        """The object to store: rules of an update applied to what the client wants. `place`: namespace and name."""
        namespace, name = place
        meta = metadata.place(kind, new, namespace)
        if meta.setdefault('name', name) != name:
            raise BadRequest(f'the name of the object ({meta["name"]}) does not match the name on the URL ({name})')
        metadata.check_precondition(kind, name, new, old)
        if not kind.strategy.unconditional_update and meta.get('resourceVersion') in {None, '', '0'}:
            missing = Invalid('metadata.resourceVersion', 'Invalid value: 0x0: must be specified for an update')
            self._refuse(kind, new, [missing])
        metadata.carry_over(new, old)
        if write.subresource in STATUS_LIKE:
            new = status_view(new, old, kind.strategy.status_keeps)
        elif kind.has_status and not write.direct:
            _copy_status(new, old)
        strategy = kind.strategy
        strategy.default(new)
        attributes = self._attributes('UPDATE', kind, namespace, write, obj=new, old=old)
        if not write.admitted:
            await self.admission.mutate(attributes)
        strategy.default(new)
        broken = list(metadata.validate_change(new, old))
        if write.subresource in STATUS_LIKE:
            strategy.prepare_status(new, old)
            broken += strategy.validate_status(new, old)
        elif not write.direct:
            strategy.prepare(new, old)
            if strategy.generation and 'spec' in new:
                metadata.bump_generation(new, old)
            strategy.observe(new)
            broken += strategy.validate(new, old)
        else:
            broken += strategy.validate_part(write.subresource, new, old)
        self._refuse(kind, new, broken)
        if not write.admitted:
            await self.admission.validate(attributes)
        write.warnings[:] = [*dict.fromkeys([*write.warnings, *strategy.warnings(new, old)])]
        self.ownership.record(kind, new, old, write)
        return new

    async def _remove(self, kind: Kind, key: str, done: _Finished, write: Write) -> Entry | None:
        """Complete a deletion; None when the object moved on and the update must be computed again."""
        value = encode(done.result)
        if write.options.dry_run:
            return Entry(key, value, done.current.rv)
        try:
            gone = await self.cache.delete(key, check=_unmoved(done.current.rv), origin=done.current)
        except _Moved:
            return None
        except KeyMissing as e:
            raise NotFound.of(kind.resource, key.rpartition('/')[2]) from e
        await self._released(kind, done.result)
        return Entry(key, value, gone.rv)

    # — delete —

    async def delete(
        self, kind: Kind, namespace: str, name: str, options: DeleteOptions, write: Write
    ) -> tuple[Entry, bool]:
        """Remove or mark. Returns the object and whether it is gone. Raises NotFound, Conflict."""
        key = self.key(kind, namespace, name)
        entry = self.cache.peek(key)
        current = entry.versioned if entry is not None else None
        for _ in range(DELETE_ATTEMPTS_MAX):
            fresh = current is None
            try:
                if current is None:
                    current = await self.cache.storage.get(key)
                return await self._delete_once(kind, key, current, options, write)
            except _Moved:
                current = None
            except KeyMissing as e:
                raise NotFound.of(kind.resource, name) from e
            except Exception:
                if fresh:
                    raise
                current = None  # the refusal may be founded on a stale copy
        raise Conflict.of(kind.resource, name, 'the object kept changing; please try again')

    async def _delete_once(
        self, kind: Kind, key: str, current: Versioned, options: DeleteOptions, write: Write
    ) -> tuple[Entry, bool]:
        stored_obj = decode(current.value, current.rv)
        old = stored_obj if kind.conversion is None else await self._decoded(kind, current)
        deletion.check_preconditions(kind, old, options)
        meta = old['metadata']
        if not write.admitted:
            attributes = self._attributes('DELETE', kind, meta.get('namespace', ''), write, obj=None, old=old)
            attributes.options = admission_options('DELETE', options)
            await self.admission.mutate(attributes)
            await self.admission.validate(attributes)
        marked = deletion.mark(kind, stored_obj, options, self.env.clock.wall())
        if marked is None:
            if options.dry_run:
                return Entry(key, current.value, current.rv), True
            gone = await self.cache.delete(key, check=_unmoved(current.rv), origin=current)
            await self._released(kind, old)
            return await self._seen(kind, Entry(key, current.value, gone.rv)), True
        value = encode(marked)
        if options.dry_run or value == current.value:
            return await self._seen(kind, Entry(key, value, current.rv)), False

        async def change(now: Versioned) -> bytes:
            if now.rv != current.rv:
                raise _Moved
            return value

        stored = await self.cache.update(key, change, origin=current)
        return await self._seen(kind, Entry(key, stored.value, stored.rv)), False

    async def _released(self, kind: Kind, obj: Obj) -> None:
        hooks = self.hooks.get(kind.resource.qualified)
        if hooks:
            await hooks.release(hooks.held(obj))

    def _attributes(
        self, operation: Operation, kind: Kind, namespace: str, write: Write, *, obj: Obj | None, old: Obj | None
    ) -> Attributes:
        name = (obj or old or {}).get('metadata', {}).get('name', '')
        return Attributes(
            operation, kind, namespace, name, obj, old, write.user,
            subresource=write.subresource, dry_run=write.options.dry_run, warnings=write.warnings,
            annotations=write.annotations, options=admission_options(operation, write.options), requested=write.asked,
        )  # fmt: skip

    @staticmethod
    def _refuse(kind: Kind, obj: Obj, broken: list[Invalid]) -> None:
        if broken:
            raise InvalidObject(kind.resource.kind, kind.resource.group, obj['metadata'].get('name', ''), broken)


def served(entry: Entry) -> Obj:
    """The object of an entry, also of a dry run's, which has no version."""
    obj: Obj = entry.obj if entry.rv else orjson.loads(entry.value)
    return obj


def _parts(current: Versioned) -> tuple[str, bytes, int]:
    return current.key, current.value, current.rv


def _unless_same(value: bytes, stored: bytes) -> bytes:
    """`stored` where `value` says the same in another order, as a protobuf client's does: that is no change."""
    if len(value) == len(stored) and value != stored and orjson.loads(value) == orjson.loads(stored):
        return stored
    return value


def _unmoved(rv: int) -> Callable[[Versioned], None]:
    def check(now: Versioned) -> None:
        if now.rv != rv:
            raise _Moved

    return check


def _copy_status(new: Obj, old: Obj) -> None:
    if 'status' in old:
        new['status'] = _copied(old, 'status', new)
    else:
        new.pop('status', None)


def _copied(old: Obj, field: str, new: Obj) -> Any:
    """A field of the old object that shares nothing with it: the new object's own, where that is the same."""
    value = old[field]
    if field in new and orjson.dumps(new[field]) == orjson.dumps(value):  # much less work than making a copy
        return new[field]
    return clone({field: value})[field]


def status_view(new: Obj, old: Obj, keeps: Sequence[str]) -> Obj:
    """What a write through /status stores: the old object with the new status, and the new metadata but for `keeps`."""
    view = {k: _copied(old, k, new) for k in old if k not in {'metadata', 'status'}}
    if 'status' in new:
        view['status'] = new['status']
    given = new['metadata']
    kept = clone(old['metadata']) if keeps else {}
    if '*' in keeps:
        given = kept | {k: v for k, v in given.items() if k == 'managedFields'}
    view['metadata'] = {k: v for k, v in given.items() if k not in keeps} | {k: kept[k] for k in keeps if k in kept}
    return view
