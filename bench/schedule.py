"""Scheduling throughput of the pure cycle: queue → filter → score → assume → confirm, no API and no network.

Cases: plain pods (resources only, with the default spreading of a workload), pods with hard topology spread over zones,
pods with required anti-affinity to their own kind per host. Each at 1,000 and 5,000 nodes.
"""

from __future__ import annotations

import random
from typing import Any

from bench.common import Figures, Settings, emit
from kcontrol.scheduler.core import Bind, Core
from kcore.env import Env

Obj = dict[str, Any]

ZONE, HOST = 'topology.kubernetes.io/zone', 'kubernetes.io/hostname'
SIZES = (1_000, 5_000)
CASES = ('plain', 'spread', 'anti-affinity')
PODS = 2_000


def make_node(i: int) -> Obj:
    name = f'node-{i:05}'
    return {
        'metadata': {'name': name, 'labels': {HOST: name, ZONE: f'zone-{i % 3}'}},
        'spec': {},
        'status': {'allocatable': {'cpu': '16', 'memory': '64Gi', 'pods': '110'}},
    }


def make_pod(i: int, case: str) -> Obj:
    app = f'app-{i % 20}' if case != 'anti-affinity' else f'app-{i // 200}'
    selector = {'matchLabels': {'app': app}}
    spec: Obj = {'containers': [{'name': 'c', 'resources': {'requests': {'cpu': '100m', 'memory': '200Mi'}}}]}
    if case == 'spread':
        spec['topologySpreadConstraints'] = [
            {'maxSkew': 1, 'topologyKey': ZONE, 'whenUnsatisfiable': 'DoNotSchedule', 'labelSelector': selector}
        ]
    if case == 'anti-affinity':
        term = {'topologyKey': HOST, 'labelSelector': selector}
        spec['affinity'] = {'podAntiAffinity': {'requiredDuringSchedulingIgnoredDuringExecution': [term]}}
    meta = {
        'name': f'pod-{i}', 'namespace': 'default', 'uid': str(i), 'labels': {'app': app},
        'ownerReferences': [{'kind': 'ReplicaSet', 'name': app, 'controller': True}],
    }  # fmt: skip
    return {'metadata': meta, 'spec': spec, 'status': {}}


def pods_per_second(case: str, nodes: int, pods: int, env: Env) -> float:
    """One run; every pod has to be bound."""
    core = Core('default-scheduler', random.Random(1), env.clock.monotonic)
    for i in range(nodes):
        core.node_changed(None, make_node(i))
    for i in range(20):
        selector = {'matchLabels': {'app': f'app-{i}'}}
        owner = {'metadata': {'namespace': 'default', 'name': f'app-{i}'}, 'spec': {'selector': selector}}
        core.owner_changed('ReplicaSet', None, owner)
    for i in range(pods):
        core.pod_changed(None, make_pod(i, case))
    began = env.clock.monotonic()
    bound = 0
    while (decision := core.next()) is not None:
        assert isinstance(decision, Bind), decision
        core.bound(decision.pod)
        obj = decision.pod.obj
        core.pod_changed(obj, {**obj, 'spec': {**obj['spec'], 'nodeName': decision.pod.node}})
        bound += 1
    assert bound == pods
    return bound / (env.clock.monotonic() - began)


def run(settings: Settings) -> None:
    sizes, pods = ((20,), 20) if settings.smoke else (SIZES, PODS)
    env = Env.real()
    for case in CASES:
        for nodes in sizes:
            figures = Figures()
            for _ in range(settings.runs):
                figures.add(pods_per_s=pods_per_second(case, nodes, pods, env))
            emit('schedule', f'{case}, {nodes} nodes', figures)
