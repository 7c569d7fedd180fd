"""Builders of pods and nodes, and a core with a clock that the test moves."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from kcontrol.scheduler.core import Bind, Core, Failure
from kcontrol.scheduler.nodeinfo import NodeInfo
from kcontrol.scheduler.podinfo import PodInfo, parse_pod
from kcontrol.scheduler.snapshot import Cache

Obj = dict[str, Any]


def make_node(name: str, *, cpu: str = '4', memory: str = '8Gi', pods: int = 110, **more: Any) -> Obj:
    """`labels`, `taints`, `unschedulable`, `extended` go where they belong."""
    labels = {'kubernetes.io/hostname': name, **(more.get('labels') or {})}
    spec = {k: more[k] for k in ('taints', 'unschedulable') if k in more}
    allocatable = {'cpu': cpu, 'memory': memory, 'pods': str(pods), **(more.get('extended') or {})}
    return {
        'apiVersion': 'v1',
        'kind': 'Node',
        'metadata': {'name': name, 'labels': labels},
        'spec': spec,
        'status': {'allocatable': allocatable},
    }


def make_pod(name: str, *, cpu: str = '', memory: str = '', labels: Obj | None = None, **spec: Any) -> Obj:
    """Further keywords are fields of the spec, but for `uid`, `namespace`, `owner` and `status`."""
    meta = {'name': name, 'namespace': spec.pop('namespace', 'default'), 'uid': spec.pop('uid', f'uid-{name}')}
    meta |= {'labels': labels} if labels else {}
    owner = spec.pop('owner', None)
    meta |= {'ownerReferences': [{'kind': owner[0], 'name': owner[1], 'controller': True}]} if owner else {}
    status = spec.pop('status', {})
    requests = {k: v for k, v in (('cpu', cpu), ('memory', memory)) if v}
    containers = spec.pop('containers', None) or [{'name': 'c', 'resources': {'requests': requests}}]
    return {
        'apiVersion': 'v1',
        'kind': 'Pod',
        'metadata': meta,
        'spec': {'containers': containers, **spec},
        'status': status,
    }


class Bench:
    """A core, its clock, and what it decided."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 1_000.0
        self.core = Core('default-scheduler', random.Random(seed), lambda: self.now)

    def nodes(self, *objs: Obj) -> None:
        for obj in objs:
            self.core.node_changed(None, obj)

    def pods(self, *objs: Obj) -> None:
        for obj in objs:
            self.core.pod_changed(None, obj)

    def run(self) -> dict[str, str]:
        """Pod → node for all that could be placed now, each confirmed at once."""
        placed: dict[str, str] = {}
        while (decision := self.core.next()) is not None:
            if isinstance(decision, Bind):
                placed[decision.pod.name] = decision.pod.node
                self.confirm(decision.pod)
        return placed

    def confirm(self, pod: PodInfo) -> None:
        """The API accepts the binding and the informer shows it."""
        self.core.bound(pod)
        self.core.pod_changed(pod.obj, {**pod.obj, 'spec': {**pod.obj['spec'], 'nodeName': pod.node}})

    def failure(self, obj: Obj) -> Failure:
        """Try `obj` and expect that nothing fits."""
        self.pods(obj)
        decision = self.core.next()
        assert isinstance(decision, Failure), decision
        return decision


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def node() -> Callable[..., Obj]:
    return make_node


@pytest.fixture
def pod() -> Callable[..., Obj]:
    return make_pod


@pytest.fixture(scope='session')
def builders() -> tuple[Callable[..., Obj], Callable[..., Obj]]:
    """(node, pod), for tests that Hypothesis repeats."""
    return make_node, make_pod


@pytest.fixture
def verdict() -> Callable[[Obj, Obj, list[Obj]], tuple[str, ...]]:
    """Reasons for which a pod does not fit one node that carries the given pods; empty when it fits."""

    def measure(wanted: Obj, on: Obj, present: list[Obj]) -> tuple[str, ...]:
        cache = Cache()
        cache.set_node(on)
        for other in present:
            cache.place(parse_pod(other).at(on['metadata']['name']))
        core = Core('default-scheduler', random.Random(1), lambda: 0.0)
        core.cache = cache
        snapshot = cache.snapshot()
        target: NodeInfo = snapshot.nodes[on['metadata']['name']]
        pod = parse_pod(wanted)
        for _, check in core.framework.checks(pod, snapshot):
            rejection = check(target)
            if rejection is not None:
                return rejection.reasons
        return ()

    return measure
