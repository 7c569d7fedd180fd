"""Fixtures: definitions as people write them, and a server that acts on them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from kapi.crd.controller import Definitions
from kcore import tasks

Obj = dict[str, Any]
CRDS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'


ANYTHING: Obj = {'type': 'object', 'x-kubernetes-preserve-unknown-fields': True}


def definition(spec: Obj | None = None, root: Obj | None = None, **version: Any) -> Obj:
    """crontabs.stable.example.com with one version v1; `version` adds to or replaces parts of it."""
    root = root or {'type': 'object', 'properties': {'spec': spec or ANYTHING}}
    one = {'name': 'v1', 'served': True, 'storage': True, 'schema': {'openAPIV3Schema': root}, **version}
    names = {'plural': 'crontabs', 'singular': 'crontab', 'kind': 'CronTab', 'shortNames': ['ct']}
    return {
        'apiVersion': 'apiextensions.k8s.io/v1',
        'kind': 'CustomResourceDefinition',
        'metadata': {'name': 'crontabs.stable.example.com'},
        'spec': {'group': 'stable.example.com', 'scope': 'Namespaced', 'names': names, 'versions': [one]},
    }


class Custom:
    """A client that declares kinds and waits until they are served."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.path = '/apis/stable.example.com/v1/namespaces/default/crontabs'

    async def until(self, name: str, wanted: Any) -> Obj:
        """The definition once `wanted(it)` holds."""
        query = f'?watch=true&fieldSelector=metadata.name={name}&resourceVersion=0'
        async with self.api.watch(CRDS + query) as event:
            while True:
                seen = (await event())['object']
                if wanted(seen):
                    return seen

    async def declare(self, crd: Obj) -> Obj:
        made = await self.api.post(CRDS, crd)
        assert made.status == 201, made.text
        return await self.until(crd['metadata']['name'], established)

    def obj(self, name: str = 'x', spec: Any = None, **more: Any) -> Obj:
        api_version = more.pop('apiVersion', 'stable.example.com/v1')
        body = {'apiVersion': api_version, 'kind': 'CronTab', 'metadata': {'name': name}, **more}
        return body if spec is None else {**body, 'spec': spec}

    async def create(self, spec: Any = None, name: str = 'x', **more: Any) -> SimpleNamespace:
        return await self.api.post(self.path, self.obj(name, spec, **more))


def established(crd: Obj) -> bool:
    conditions = (crd.get('status') or {}).get('conditions') or ()
    return any(c['type'] == 'Established' and c['status'] == 'True' for c in conditions)


@contextlib.asynccontextmanager
async def acting(server: Any) -> AsyncIterator[None]:
    task = tasks.start_detached('definitions', Definitions(server).run())
    try:
        yield
    finally:
        await tasks.stop(task)


@pytest.fixture
async def custom(world: SimpleNamespace, api: Any) -> AsyncIterator[Custom]:
    async with acting(world.server):
        yield Custom(api)


@pytest.fixture(scope='session')
def crd_tools() -> SimpleNamespace:
    return SimpleNamespace(definition=definition, acting=acting, Custom=Custom, CRDS=CRDS, established=established)


@pytest.fixture(scope='session')
def define() -> Any:
    return definition


@pytest.fixture
def within() -> Any:
    return lambda: asyncio.timeout(20)
