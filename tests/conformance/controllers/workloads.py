"""Builders of workloads, and what is done to them through their subresources."""

from __future__ import annotations

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
