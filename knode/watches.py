"""Watches of the ConfigMaps and Secrets that pods mount, one for each object: the Node authorizer opens no others.

A watch says that an object is another one than before, not what is in it; who mounts it reads it. Several pods share
one watch, and it ends with the last of them. Source: pkg/kubelet/util/manager/watch_based_manager.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

from kclient.api import Client
from kclient.informer import Informer
from kclient.model import Obj
from kcore.meta.gvk import Resource
from kcore.tasks import start_restarting

WATCHES_MAX = 64
"""Each takes one of the client's connections. Objects beyond wait for a free one, and are polled until then."""

Ref = tuple[Resource, str, str]
"""Resource, namespace, name."""
Tell = Callable[[Ref, str], None]
"""Called with the resourceVersion that an object has now; also with the one it had when the watch began."""


class ObjectWatches:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._refs: dict[Tell, frozenset[Ref]] = {}
        self._followers: dict[Ref, dict[Tell, None]] = {}
        self._running: dict[Ref, tuple[Informer, asyncio.Task[NoReturn]]] = {}
        self._group: asyncio.TaskGroup | None = None

    @property
    def watched(self) -> frozenset[Ref]:
        return frozenset(self._running)

    def version(self, ref: Ref) -> str:
        """The resourceVersion that an object has as far as is known; empty: no watch tells, or there is no object."""
        known = self._running[ref][0].store.list() if ref in self._running else ()
        return next((obj['metadata']['resourceVersion'] for obj in known), '')

    def tells(self, ref: Ref) -> bool:
        """Whether a change will be told: the object is watched, and what it is now has been seen."""
        return ref in self._running and self._running[ref][0].has_synced

    async def run(self) -> NoReturn:
        """Watch what is followed."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                self._balance()
                await asyncio.Event().wait()
            finally:
                self._group = None  # it takes no more tasks, and those it has end
                self._running.clear()
        raise AssertionError('nothing ends the wait')

    def follow(self, refs: frozenset[Ref], tell: Tell) -> None:
        """From now on `tell` hears of exactly these."""
        before = self._refs.pop(tell, frozenset())
        if refs:
            self._refs[tell] = refs
        for ref in before - refs:
            del self._followers[ref][tell]
            if not self._followers[ref]:
                del self._followers[ref]
        for ref in refs - before:
            self._followers.setdefault(ref, {})[tell] = None
            for obj in self._running[ref][0].store.list() if ref in self._running else ():
                tell(ref, obj['metadata']['resourceVersion'])
        self._balance()

    def _balance(self) -> None:
        """End what nobody follows any more, begin what there is room for."""
        if self._group is None:
            return
        for ref in self._running.keys() - self._followers.keys():
            self._running.pop(ref)[1].cancel()
        for ref in self._followers:
            if ref not in self._running and len(self._running) < WATCHES_MAX:
                self._running[ref] = self._begin(self._group, ref)

    def _begin(self, group: asyncio.TaskGroup, ref: Ref) -> tuple[Informer, asyncio.Task[NoReturn]]:
        resource, namespace, name = ref
        informer = Informer(
            self._client, resource, namespace=namespace, field_selector=f'metadata.name={name}', metadata_only=True
        )

        def changed(_: Obj | None, new: Obj | None) -> None:
            if new is not None:  # files of an object that is gone stay
                for tell in [*self._followers.get(ref, ())]:
                    tell(ref, new['metadata']['resourceVersion'])

        informer.on_change(changed)
        task = start_restarting(group, f'watch {resource.plural} {namespace}/{name}', informer.run, self._client.env)
        return informer, task
