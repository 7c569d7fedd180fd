"""The garbage collector: watches every kind that discovery names, and works the graph's queue.

Kinds that appear later (custom resources) are found by looking at discovery again, each SYNC_S and whenever a
CustomResourceDefinition changes.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

import structlog

from kclient.discovery import Discovery, discover
from kclient.errors import ClientError, Conflict, Invalid, NotFound
from kclient.model import Obj
from kclient.queue import WorkQueue
from kcontrol.controller import Ctx, loop
from kcontrol.controllers.gc import graph as g
from kcontrol.figures import GC_SYNC_ERRORS
from kcore.meta.gvk import Resource
from kcore.tasks import start_essential, start_restarting

log = structlog.get_logger('kcontrol.gc')

WORKERS = 10
SYNC_S = 30.0
ABSENT_MAX = 500
"""Owners known to be absent (a uid never comes back); at the limit the cache is emptied."""
SYNC_PATIENCE_S = 30.0
"""How long the start waits for all kinds to be listed; owners are verified with the server in any case."""
CRDS = Resource('apiextensions.k8s.io', 'v1', 'customresourcedefinitions', 'CustomResourceDefinition', namespaced=False)
VERBS = ('delete', 'list', 'watch')
# Events never own and are never owned, and there are many of them.
IGNORED = frozenset({'events', 'events.events.k8s.io'})


@loop('gc')
async def run(c: Ctx) -> NoReturn:
    await Collector(c).run()


class Collector:
    """One term of the garbage collector."""

    def __init__(self, c: Ctx) -> None:
        self._c = c
        self.graph = g.Graph()
        self.queue: WorkQueue[str] = c.queue
        self._found = Discovery((), {})
        self._watched: set[Resource] = set()
        self._absent: set[tuple[str, str]] = set()
        self._look_again = asyncio.Event()

    async def run(self) -> NoReturn:
        async with asyncio.TaskGroup() as group:
            await self.sync()
            await self._listed()
            start_restarting(group, 'gc discovery', self._keep_in_sync, self._c.env)
            for number in range(WORKERS):
                start_essential(group, f'gc worker {number}', self._work())
        raise AssertionError('unreachable: the workers never end')

    async def sync(self) -> None:
        """Watch what is served now, and no more."""
        try:
            self._found = await discover(self._c.client)
        except ClientError:
            self._c.figures.count(GC_SYNC_ERRORS)
            raise
        served = {r for r in self._found.with_verbs(*VERBS) if r.qualified not in IGNORED}
        for resource in served - self._watched:
            self._watch(resource)
        if self._found.failed:
            self._c.figures.count(GC_SYNC_ERRORS)
            return  # a group that does not answer just now must not lose its objects
        for resource in self._watched - served:
            self._watched.discard(resource)
            await self._c.informers.drop(resource)
            for uid in [n.uid for n in self.graph.nodes.values() if n.resource == resource]:
                self._enqueue(self.graph.remove(uid))

    def _watch(self, resource: Resource) -> None:
        self._watched.add(resource)

        def changed(old: Obj | None, new: Obj | None) -> None:
            if new is not None:
                self._enqueue(self.graph.put(g.node_of(resource, new)))
            elif old is not None:
                self._enqueue(self.graph.remove(str(old['metadata']['uid'])))
            if resource == CRDS:
                self._look_again.set()

        # Owners and finalizers are all that counts here; kinds that nobody else watches are not held whole.
        self._c.informers.get(resource, metadata_only=True).on_change(changed)

    async def _listed(self) -> None:
        try:
            async with asyncio.timeout(SYNC_PATIENCE_S):
                await self._c.informers.synced()
        except TimeoutError:
            log.warning('garbage collector started before all kinds were listed')

    async def _keep_in_sync(self) -> NoReturn:
        while True:
            try:
                async with asyncio.timeout(SYNC_S):
                    await self._look_again.wait()
            except TimeoutError:
                pass
            self._look_again.clear()
            await self.sync()

    def _enqueue(self, uids: set[str]) -> None:
        for uid in uids:
            self.queue.add(uid)

    async def _work(self) -> NoReturn:
        while True:
            uid = await self.queue.get()
            try:
                await self.process(uid)
                self.queue.forget(uid)
            except (NotFound, Conflict, Invalid):
                self.queue.add_rate_limited(uid, shared=False)
            except ClientError as e:
                log.warning('object could not be collected', uid=uid, err=f'{type(e).__name__}: {e}')
                self.queue.add_rate_limited(uid)
            except Exception as e:
                log.error('garbage collection crashed', uid=uid, err=f'{type(e).__name__}: {e}', exc_info=e)
                self.queue.add_rate_limited(uid)
            finally:
                self.queue.done(uid)

    async def process(self, uid: str) -> None:
        """Look at one object and do what has to be done."""
        node = self.graph.nodes.get(uid)
        if node is None:
            return
        owners = {} if node.deleting else {str(r['uid']): await self._state(node, r) for r in node.owners}
        for action in g.decide(self.graph, node, owners):
            node = await self._act(node, action)

    async def _state(self, node: g.Node, ref: Obj) -> g.OwnerState:
        uid = str(ref['uid'])
        owner = self.graph.nodes.get(uid)
        if owner is not None and (not owner.namespace or owner.namespace == node.namespace):
            return 'waiting' if owner.foreground else 'solid'
        if (node.namespace, uid) in self._absent:
            return 'absent'
        resource = self._found.find(str(ref.get('apiVersion')), str(ref.get('kind')))
        if resource is None:
            self._look_again.set()
            raise UnknownOwnerKind(f'{ref.get("apiVersion")} {ref.get("kind")} is not served')
        if resource.namespaced and not node.namespace:
            self._warn(node, ref)
            return 'solid'  # never resolvable: such an object is left alone
        try:
            held = await self._c.client.get(resource, str(ref['name']), node.namespace if resource.namespaced else None)
        except NotFound:
            held = None
        if held is not None and held['metadata']['uid'] == uid:
            return 'waiting' if g.node_of(resource, held).foreground else 'solid'
        if owner is not None:
            self._warn(node, ref)
        if len(self._absent) >= ABSENT_MAX:
            self._absent.clear()
        self._absent.add((node.namespace, uid))
        return 'absent'

    def _warn(self, node: g.Node, ref: Obj) -> None:
        text = f'ownerRef [{ref.get("apiVersion")}/{ref.get("kind")}, namespace: {node.namespace}, name: {ref["name"]}'
        meta = {'name': node.name, 'uid': node.uid} | ({'namespace': node.namespace} if node.namespace else {})
        obj = {'apiVersion': node.resource.api_version, 'kind': node.resource.kind, 'metadata': meta}
        self._c.event(
            obj, 'Warning', 'OwnerRefInvalidNamespace', f'{text}, uid: {ref["uid"]}] does not exist in this namespace'
        )

    async def _act(self, node: g.Node, action: g.Action) -> g.Node:
        """Carry out, bound to the version that was looked at. Returns the object as it is afterwards."""
        match action:
            case g.Delete(propagation=policy):
                log.info('object collected', object=f'{node.namespace}/{node.name}', kind=node.resource.qualified)
                await self._c.client.delete(
                    node.resource, node.name, node.namespace or None,
                    propagation=policy, uid=node.uid, resource_version=node.resource_version,
                )  # fmt: skip
                return node
            case g.SetOwners(owners=owners):
                return await self._patch(node, {'ownerReferences': [*owners] or None})
            case g.DropFinalizer(name=name):
                return await self._patch(node, {'finalizers': sorted(node.finalizers - {name}) or None})
            case g.Orphan(dependents=dependents):
                for dependent in dependents:
                    left = [r for r in dependent.owners if r.get('uid') != node.uid]
                    try:
                        await self._patch(dependent, {'ownerReferences': left or None})
                    except NotFound:
                        continue
                return await self._patch(node, {'finalizers': sorted(node.finalizers - {g.ORPHAN}) or None})

    async def _patch(self, node: g.Node, meta: Obj) -> g.Node:
        pin = {'uid': node.uid, 'resourceVersion': node.resource_version}
        patch = {'metadata': {**meta, **pin}}
        held = await self._c.client.patch(node.resource, node.name, patch, node.namespace or None)
        return g.node_of(node.resource, held)


class UnknownOwnerKind(ClientError):
    """The owner's kind is not served (yet): nothing can be said about the owner."""


__all__ = ['Collector', 'run']
