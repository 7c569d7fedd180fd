"""What the API server does about definitions: accept their names, establish them, and empty them before they go.

Every API server runs this; what it writes depends only on what is stored, so several agree, and a write that finds
its work done is none. Source: apiextensions-apiserver pkg/controller/{status,establish,finalizer}.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

from kapi.authn.user import SYSTEM
from kapi.crd.names import accept
from kapi.crd.registrar import PREFIX
from kapi.errors import ApiError, NotFound
from kapi.kinds.apiextensions.customresourcedefinition import FINALIZER, KIND
from kapi.registry.catalog import key_prefix
from kapi.registry.kind import Kind
from kapi.registry.options import DeleteOptions, WriteOptions
from kapi.registry.store import Write
from kapi.storage.base import StorageError
from kapi.storage.codec import clone
from kapi.storage.entries import Entry
from kapi.storage.watchers import Overflow
from kcore import tasks
from kcore.meta.objects import condition_is, deleting, set_condition

if TYPE_CHECKING:
    from kapi.server.service import ApiServer

Obj = dict[str, Any]
log = structlog.get_logger('kapi.crd')

RETRY_S = 0.5
"""Pause before what failed is tried again."""
DELETES_AT_ONCE = 16
"""Custom resources that are deleted concurrently when their definition goes."""


class Definitions:
    """The control loop over all definitions."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._done: dict[str, int] = {}
        """Key → version that needs nothing more."""
        self._emptying: set[str] = set()

    async def run(self) -> NoReturn:
        """Reacts to every change, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                cache = self._server.cache
                watcher = cache.subscribe(PREFIX, PREFIX, cache.revision, None)
                try:
                    while True:
                        self._server.custom.sync()
                        again = await self._pass(group)
                        try:
                            async with asyncio.timeout(RETRY_S if again else None):
                                await watcher.take()
                        except TimeoutError:
                            continue
                except Overflow:
                    continue  # the cache was read again; so do we
                finally:
                    cache.unsubscribe(PREFIX, PREFIX, watcher)
        raise AssertionError('unreachable')

    async def _pass(self, group: asyncio.TaskGroup) -> bool:
        """Look at every definition that changed. Returns whether something is to be tried again."""
        entries = self._server.cache.resource(PREFIX).entries
        self._done = {k: rv for k, rv in self._done.items() if k in entries}
        again = False
        for key, entry in list(entries.items()):
            if self._done.get(key) == entry.rv:
                continue
            try:
                if deleting(entry.obj):
                    self._empty(group, key, entry)
                else:
                    await self._establish(entry)
            except (ApiError, StorageError) as e:
                log.warning('a definition was not settled yet', crd=key.removeprefix(PREFIX), err=str(e))
                again = True
                continue
            if condition_is(entry.obj, 'NamesAccepted'):
                self._done[key] = entry.rv
        return again

    async def _establish(self, entry: Entry) -> None:
        now = self._server.env.clock.wall()
        cache = self._server.cache

        async def settle(crd: Obj) -> Obj:
            accept(crd, (e.obj for k, e in cache.resource(PREFIX).entries.items() if k != entry.key), now)
            return crd

        if await self._needs(entry):
            await self._write_status(entry.obj['metadata']['name'], settle)

    async def _needs(self, entry: Entry) -> bool:
        others = (e.obj for k, e in self._server.cache.resource(PREFIX).entries.items() if k != entry.key)
        return accept(clone(entry.obj), others, self._server.env.clock.wall())

    async def _write_status(self, name: str, change: Any) -> None:
        write = Write(SYSTEM, WriteOptions(field_manager='kube-apiserver'), subresource='status')
        try:
            await self._server.registry.update(KIND, '', name, change, write)
        except NotFound:
            return  # deleted meanwhile

    # — deletion —

    def _empty(self, group: asyncio.TaskGroup, key: str, entry: Entry) -> None:
        if key in self._emptying or FINALIZER not in (entry.obj['metadata'].get('finalizers') or ()):
            return
        self._emptying.add(key)
        tasks.start(group, f'empty {key}', self._empty_until_done(key, entry.obj['metadata']['name']))

    async def _empty_until_done(self, key: str, name: str) -> None:
        try:
            while True:
                try:
                    return await self._empty_once(key, name)
                except (ApiError, StorageError) as e:
                    log.warning('custom resources were not deleted yet', crd=name, err=str(e))
                    await asyncio.sleep(RETRY_S)
        finally:
            self._emptying.discard(key)

    async def _empty_once(self, key: str, name: str) -> None:
        server = self._server
        kind = next((v.kind for v in server.custom.versions(name) if v.storage), None)
        if kind is not None:
            await self._terminating(name)
            await self._delete_all(kind)
            await self._gone(kind)

        async def release(crd: Obj) -> Obj:
            crd['metadata']['finalizers'] = [f for f in crd['metadata'].get('finalizers') or () if f != FINALIZER]
            return crd

        write = Write(SYSTEM, WriteOptions(field_manager='kube-apiserver'))
        try:
            await server.registry.update(KIND, '', name, release, write)
        except NotFound:
            return
        log.info('a definition is gone', crd=name)

    async def _terminating(self, name: str) -> None:
        now = self._server.env.clock.wall()
        reason, message = 'InstanceDeletionInProgress', 'CustomResource deletion is in progress'

        async def settle(crd: Obj) -> Obj:
            set_condition(crd, 'Terminating', 'True', now, reason=reason, message=message)
            return crd

        await self._write_status(name, settle)

    async def _delete_all(self, kind: Kind) -> None:
        server = self._server
        await server.cache.fresh()
        room = asyncio.Semaphore(DELETES_AT_ONCE)

        async def one(meta: Obj) -> None:
            async with room:
                try:
                    await server.registry.delete(
                        kind, meta.get('namespace', ''), meta['name'], DeleteOptions(), Write(SYSTEM)
                    )
                except NotFound:
                    return

        entries = list(server.cache.resource(key_prefix(kind.resource)).entries.values())
        await asyncio.gather(*(one(e.obj['metadata']) for e in entries))

    async def _gone(self, kind: Kind) -> None:
        """Until the last custom resource is gone; those with finalizers wait for their owners."""
        cache, prefix = self._server.cache, key_prefix(kind.resource)
        while True:
            watcher = cache.subscribe(prefix, prefix, cache.revision, None)
            try:
                while cache.resource(prefix).keys:
                    await watcher.take()
                return
            except Overflow:
                continue
            finally:
                cache.unsubscribe(prefix, prefix, watcher)
