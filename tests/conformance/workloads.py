"""What conformance tests of controllers share: the real API server, a pretended node agent, builders."""
# ruff: noqa: F401, F811 — fixtures are imported and are parameters

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from kcore.env import Env
from kcore.meta.gvk import PODS
from kcore.meta.objects import deleting, name_of
from tests.kcontrol.conftest import (
    admin,
    agent,
    background,
    config_of,
    controllers,
    exists,
    kapi,
    pki,
    settings,
    until,
)

Obj = dict
WORKLOADS = ('deployment', 'replicaset', 'replicationcontroller', 'gc')


def template(image: str = 'one', **spec) -> Obj:
    containers = [{'name': 'c', 'image': image}]
    return {'metadata': {'labels': {'app': 'web'}}, 'spec': {'containers': containers, **spec}}


def workload(name: str = 'web', **spec) -> Obj:
    base = {'selector': {'matchLabels': {'app': 'web'}}, 'template': template()}
    return {
        'metadata': {'name': name, 'namespace': 'default', 'labels': {'app': 'web', 'life': 'yes'}},
        'spec': {**base, **spec},
    }


def controller(**spec) -> Obj:
    return workload(**{'selector': {'app': 'web'}, **spec})


def bare_pod(name: str, **labels: str) -> Obj:
    spec = {'containers': [{'name': 'c', 'image': 'x'}]}
    return {'metadata': {'name': name, 'namespace': 'default', 'labels': labels}, 'spec': spec}


def image_of(obj: Obj) -> str:
    """Of a pod, or of a workload's template."""
    spec = obj['spec'].get('template', obj)['spec']
    return spec['containers'][0]['image']


def unversioned(obj: Obj) -> Obj:
    return {**obj, 'metadata': {k: v for k, v in obj['metadata'].items() if k != 'resourceVersion'}}


async def scale(admin, resource, replicas: int) -> None:
    """Through the subresource and, as upstream's tests do it, without a revision: the controller writes meanwhile."""
    found = unversioned(await admin.get(resource, 'web', 'default', subresource='scale'))
    await admin.update(resource, {**found, 'spec': {'replicas': replicas}}, subresource='scale')


async def through_status(admin, resource, obj: Obj) -> None:
    """A condition written by update and by patch of the status stays, whatever the controller writes beside it."""
    name = obj['metadata']['name']
    for number, condition in enumerate(
        ({'type': 'StatusUpdate', 'status': 'True', 'reason': 'E2E', 'message': 'Set from e2e test'},
         {'type': 'StatusPatched', 'status': 'True'})
    ):  # fmt: skip
        if number == 0:
            found = unversioned(await admin.get(resource, name, 'default', subresource='status'))
            held = [*found['status'].get('conditions', ()), condition]
            body = {**found, 'status': {**found['status'], 'conditions': held}}
            written = await admin.update(resource, body, subresource='status')
        else:
            body = {'metadata': {'annotations': {'patched': 'yes'}}, 'status': {'conditions': [condition]}}
            written = await admin.patch(resource, name, body, 'default', subresource='status')
        assert condition['type'] in {c['type'] for c in written['status']['conditions']}
        assert written['spec'] == obj['spec']


@pytest.fixture
def field(admin):
    """Ask whether a status field has a value."""

    def ask(resource, path: str, wanted: object, name: str = 'web'):
        async def same() -> bool:
            found = await admin.get(resource, name, 'default')
            for part in path.split('.'):
                found = (found or {}).get(part)
            return found == wanted

        return same

    return ask


@pytest.fixture
def count(admin):
    def ask(resource, wanted: int):
        async def same() -> bool:
            found = (await admin.list(resource, 'default')).items
            return sum(not deleting(o) for o in found) == wanted

        return same

    return ask


class Shifted:
    """A clock that runs as the machine's and can be put forward; timers that run already stay with the machine."""

    def __init__(self, real) -> None:
        self._real, self.ahead_s = real, 0.0

    def monotonic(self) -> float:
        return self._real.monotonic() + self.ahead_s

    def wall(self) -> datetime:
        return self._real.wall() + timedelta(seconds=self.ahead_s)


@pytest.fixture
def clock() -> Shifted:
    return Shifted(Env.real(1).clock)


@pytest.fixture
def env(clock) -> Env:
    return replace(Env.real(1), clock=clock)


@pytest.fixture
def pods(admin):
    """The pods of the workloads that are not going away, by name."""

    async def ask(**labels: str) -> list[Obj]:
        selector = ','.join(f'{k}={v}' for k, v in ({'app': 'web'} | labels).items())
        found = (await admin.list(PODS, 'default', label_selector=selector)).items
        return sorted((p for p in found if not deleting(p)), key=name_of)

    return ask
