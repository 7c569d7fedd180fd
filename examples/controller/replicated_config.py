"""A controller outside the tree: ConfigMaps labelled `example.com/replicate: "true"` appear in every namespace.

Run it with `python replicated_config.py --kubeconfig FILE`. It uses `kclient` alone: an informer, a work queue and a
client. Copies carry `example.com/copy-of` and are removed with their original.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from kclient.api import Client
from kclient.errors import AlreadyExists, ApiError, Conflict, NotFound
from kclient.informer import Informer
from kclient.kubeconfig import load
from kclient.queue import WorkQueue
from kcore.env import Env
from kcore.meta.gvk import CONFIGMAPS, NAMESPACES
from kcore.meta.objects import annotations_of, deleting, key_of, labels_of, name_of, namespace_of

REPLICATE, COPY_OF = 'example.com/replicate', 'example.com/copy-of'


class Replicator:
    def __init__(self, client: Client, env: Env) -> None:
        self.client, self.queue = client, WorkQueue[str](env)
        self.maps, self.namespaces = Informer(client, CONFIGMAPS), Informer(client, NAMESPACES)
        self.maps.on_change(self._map_changed)
        self.namespaces.on_change(lambda _old, _new: self._look_at_all())

    def _map_changed(self, old: dict | None, new: dict | None) -> None:
        for obj in (old, new):
            if obj is None:
                continue
            origin = annotations_of(obj).get(COPY_OF)
            if origin or REPLICATE in labels_of(obj):
                self.queue.add(origin or key_of(obj))

    def _look_at_all(self) -> None:
        for obj in self.maps.store.list():
            if REPLICATE in labels_of(obj):
                self.queue.add(key_of(obj))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.maps.run())
            group.create_task(self.namespaces.run())
            await self.maps.synced()
            await self.namespaces.synced()
            group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self.reconcile(key)
            except ApiError as e:
                print(f'{key}: {e}; trying again')
                self.queue.add_rate_limited(key)
            else:
                self.queue.forget(key)
            finally:
                self.queue.done(key)

    async def reconcile(self, key: str) -> None:
        """Bring the copies of one ConfigMap to what the caches say they should be."""
        origin = self.maps.store.get(key)
        live = origin is not None and not deleting(origin) and labels_of(origin).get(REPLICATE) == 'true'
        copies = {namespace_of(m): m for m in self.maps.store.list() if annotations_of(m).get(COPY_OF) == key}
        wanted = {name_of(n) for n in self.namespaces.store.list() if not deleting(n)} if live else set()
        for namespace in wanted - {key.partition('/')[0]}:
            await self._keep(origin or {}, key, namespace, copies.pop(namespace, None))
        for namespace, copy in copies.items():
            try:
                await self.client.delete(CONFIGMAPS, name_of(copy), namespace, uid=copy['metadata']['uid'])
            except (NotFound, Conflict):
                continue

    async def _keep(self, origin: dict, key: str, namespace: str, copy: dict | None) -> None:
        data = origin.get('data') or {}
        if copy is None:
            meta = {'name': name_of(origin), 'namespace': namespace, 'annotations': {COPY_OF: key}}
            try:
                await self.client.create(CONFIGMAPS, {'metadata': meta, 'data': data})
            except AlreadyExists:
                return  # somebody else's: leave it
        elif (copy.get('data') or {}) != data:
            gone = {k: None for k in copy.get('data') or {} if k not in data}
            await self.client.patch(CONFIGMAPS, name_of(copy), {'data': {**gone, **data}}, namespace)


async def main() -> None:
    parser = argparse.ArgumentParser(description='Copies labelled ConfigMaps into every namespace.')
    parser.add_argument('--kubeconfig', type=Path, required=True)
    args = parser.parse_args()
    env = Env.real()
    async with Client(load(args.kubeconfig, env), env, user_agent='replicated-config') as client:
        await Replicator(client, env).run()


if __name__ == '__main__':
    asyncio.run(main())
