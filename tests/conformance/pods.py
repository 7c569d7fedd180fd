"""A namespace on a cluster of real processes, for the conformance tests that need running pods."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from kclient.api import Client
from kclient.errors import NotFound
from kclient.kubeconfig import load
from kcore.env import Env
from kcore.meta.gvk import NAMESPACES, PODS
from tests.e2e.conftest import LocalCluster

Obj = dict[str, Any]
WITHIN_S = 90.0


class World:
    """A namespace of one test's own and what it does there."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client, self.namespace = client, namespace

    async def create(self, name: str, *command: str, **spec: Any) -> Obj:
        container = {'name': 'c', 'image': spec.pop('image', 'busybox'), **spec.pop('container', {})}
        if command:
            container['command'] = list(command)
        spec = {'restartPolicy': 'Never', 'terminationGracePeriodSeconds': 1, 'containers': [container], **spec}
        meta = {'name': name, 'namespace': self.namespace, 'labels': {'name': name}}
        return await self.client.create(PODS, {'metadata': meta, 'spec': spec})

    async def until(self, name: str, condition: Callable[[Obj], Any]) -> Obj:
        """The first state of the pod in which `condition` holds; every state on the way is looked at."""
        async with asyncio.timeout(WITHIN_S):
            async for pod in self.states(name):
                if condition(pod):
                    return pod
        raise AssertionError('the watch ended')

    async def states(self, name: str) -> AsyncIterator[Obj]:
        pod = await self.client.get(PODS, name, self.namespace)
        yield pod
        version = pod['metadata']['resourceVersion']
        selector = f'metadata.name={name}'
        while True:
            stream = self.client.watch(PODS, self.namespace, resource_version=version, field_selector=selector)
            async for event in stream:
                version = event.object['metadata']['resourceVersion']
                if event.type in {'ADDED', 'MODIFIED'}:
                    yield event.object

    async def phase(self, name: str, phase: str) -> Obj:
        return await self.until(name, lambda p: p['status'].get('phase') == phase)

    async def running(self, name: str) -> Obj:
        return await self.until(name, lambda p: 'running' in (first(p).get('state') or {}))

    async def logs(self, name: str, **query: str) -> str:
        path = f'/api/v1/namespaces/{self.namespace}/pods/{name}/log'
        return await (await self.client.request('GET', path, params=query)).text()

    async def output(self, name: str, *command: str, **spec: Any) -> str:
        """What a pod that runs to its end prints."""
        await self.create(name, *command, **spec)
        await self.phase(name, 'Succeeded')
        return await self.logs(name)

    async def delete(self, name: str) -> None:
        await self.client.delete(PODS, name, self.namespace)
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    await self.client.get(PODS, name, self.namespace)
                except NotFound:
                    return
                await asyncio.sleep(0.1)

    async def make(self, resource: Any, name: str, **rest: Any) -> Obj:
        return await self.client.create(resource, {'metadata': {'name': name, 'namespace': self.namespace}, **rest})


def first(pod: Obj) -> Obj:
    found: Obj = (pod.get('status', {}).get('containerStatuses') or [{}])[0]
    return found


def ended(pod: Obj) -> Obj:
    found: Obj = (first(pod).get('state') or {}).get('terminated') or {}
    return found


def condition(pod: Obj, kind: str) -> str:
    return next((c['status'] for c in pod.get('status', {}).get('conditions') or () if c['type'] == kind), '')


@contextlib.asynccontextmanager
async def open_world(cluster: LocalCluster) -> AsyncIterator[World]:
    env = Env.real()
    name = f't-{env.new_uid()[:8]}'
    async with Client(load(Path(cluster.data) / 'kubeconfig', env), env, user_agent='conformance') as client:
        await client.create(NAMESPACES, {'metadata': {'name': name}})
        yield World(client, name)
        await client.delete(NAMESPACES, name)


async def says(world: World, pod: str, text: str, **query: str) -> str:
    """The pod's log, once it holds `text`."""
    log = ''
    try:
        async with asyncio.timeout(WITHIN_S):
            while text not in log:
                log = await world.logs(pod, **query)
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f'{pod} never said {text!r}: {log[-2000:]}') from None
    return log
