"""Nodes: conditions, capacity, and how much of it the pods take."""

from __future__ import annotations

from typing import Any

from kcore.meta import quantity
from kcore.meta.gvk import LEASES, PODS
from kctl.verbs.lib.describers import related
from kctl.verbs.lib.describers.page import Page, when
from kctl.verbs.lib.errors import Refused
from kctl.verbs.lib.session import Session

Obj = dict[str, Any]

ROLE = 'node-role.kubernetes.io/'
INFO = (
    ('Machine ID', 'machineID'), ('System UUID', 'systemUUID'), ('Boot ID', 'bootID'),
    ('Kernel Version', 'kernelVersion'), ('OS Image', 'osImage'), ('Operating System', 'operatingSystem'),
    ('Architecture', 'architecture'), ('Container Runtime Version', 'containerRuntimeVersion'),
    ('Kubelet Version', 'kubeletVersion'), ('Kube-Proxy Version', 'kubeProxyVersion'),
)  # fmt: skip
COUNTED = ('cpu', 'memory', 'ephemeral-storage')


def describe(session: Session, node: Obj, page: Page) -> None:
    meta, spec, status = node['metadata'], node.get('spec') or {}, node.get('status') or {}
    page.field('Name', meta['name'])
    roles = sorted(k.removeprefix(ROLE) for k in meta.get('labels') or {} if k.startswith(ROLE))
    page.field('Roles', ','.join(roles) or '<none>')
    page.labels(node)
    page.annotations(node)
    page.field('CreationTimestamp', when(meta.get('creationTimestamp')))
    taints = [_taint(t) for t in spec.get('taints') or ()]
    for i, text in enumerate(sorted(taints) or ['<none>']):
        page.line(f'{"Taints:" if i == 0 else ""}\t{text}')
    page.field('Unschedulable', str(bool(spec.get('unschedulable'))).lower())
    _lease(session, meta['name'], page)
    if status.get('conditions'):
        page.line('Conditions:')
        page.line('Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage', 1)
        page.line('----\t------\t-----------------\t------------------\t------\t-------', 1)
        for c in status['conditions']:
            times = f'{when(c.get("lastHeartbeatTime"))} \t{when(c.get("lastTransitionTime"))}'
            page.line(f'{c["type"]} \t{c["status"]} \t{times} \t{c.get("reason", "")} \t{c.get("message", "")}', 1)
    page.line('Addresses:')
    for address in status.get('addresses') or ():
        page.field(address['type'], address['address'], 1)
    for title in ('Capacity', 'Allocatable'):
        page.line(f'{title}:')
        for name, amount in sorted((status.get(title.lower()) or {}).items()):
            page.field(name, amount, 1)
    page.line('System Info:')
    for title, key in INFO:
        page.field(title, (status.get('nodeInfo') or {}).get(key, ''), 1)
    if spec.get('podCIDR'):
        page.field('PodCIDR', spec['podCIDR'])
        page.field('PodCIDRs', ','.join(spec.get('podCIDRs') or [spec['podCIDR']]))
    _pods(session, node, page)
    page.events(related.events_of_node(session, node))


def _taint(t: Obj) -> str:
    value = f'={t["value"]}' if t.get('value') else ''
    return f'{t.get("key")}{value}:{t.get("effect")}'


def _lease(session: Session, name: str, page: Page) -> None:
    page.line('Lease:')
    try:
        spec = session.http.get(LEASES.path('kube-node-lease', name)).get('spec') or {}
    except Refused as e:
        page.line(f'Failed to get lease: {e}', 1)
        return
    page.field('HolderIdentity', spec.get('holderIdentity') or '<unset>', 1)
    page.field('AcquireTime', when(spec.get('acquireTime')), 1)
    page.field('RenewTime', when(spec.get('renewTime')), 1)


def _pods(session: Session, node: Obj, page: Page) -> None:
    fields = f'spec.nodeName={node["metadata"]["name"]},status.phase!=Succeeded,status.phase!=Failed'
    pods = related.listed(session, PODS, None, fieldSelector=fields)
    room = _amounts((node.get('status') or {}).get('allocatable') or {})
    totals: dict[str, dict[str, int]] = {'requests': {}, 'limits': {}}
    page.line(f'Non-terminated Pods:\t({len(pods)} in total)')
    page.line('Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge', 1)
    page.line('---------\t----\t\t------------\t----------\t---------------\t-------------\t---', 1)
    for pod in pods:
        used = {kind: _sum(pod, kind) for kind in totals}
        for kind, amounts in used.items():
            for name, amount in amounts.items():
                totals[kind][name] = totals[kind].get(name, 0) + amount
        cells = [
            _share(name, used[kind].get(name, 0), room) for name in ('cpu', 'memory') for kind in ('requests', 'limits')
        ]
        meta = pod['metadata']
        age = page.since(meta.get('creationTimestamp'))
        page.line('\t'.join([meta['namespace'], meta['name'], '', *cells, age]), 1)
    page.line('Allocated resources:')
    page.line('(Total limits may be over 100 percent, i.e., overcommitted.)', 1)
    page.line('Resource\tRequests\tLimits', 1)
    page.line('--------\t--------\t------', 1)
    for name in COUNTED:
        requested, limited = (_share(name, totals[kind].get(name, 0), room) for kind in ('requests', 'limits'))
        page.line(f'{name}\t{requested}\t{limited}', 1)


def _amounts(quantities: Obj) -> dict[str, int]:
    return {k: quantity.milli(v) if k == 'cpu' else quantity.value(v) for k, v in quantities.items()}


def _sum(pod: Obj, kind: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for c in (pod.get('spec') or {}).get('containers') or ():
        for name, amount in _amounts((c.get('resources') or {}).get(kind) or {}).items():
            total[name] = total.get(name, 0) + amount
    return total


def _share(name: str, amount: int, room: dict[str, int]) -> str:
    percent = amount * 100 // room[name] if room.get(name) else 0
    return f'{_text(name, amount)} ({percent}%)'


def _text(name: str, amount: int) -> str:
    if name == 'cpu':
        return str(amount // 1000) if amount % 1000 == 0 else f'{amount}m'
    for unit, size in (('Gi', 2**30), ('Mi', 2**20), ('Ki', 2**10)):
        if amount and amount % size == 0:
            return f'{amount // size}{unit}'
    return str(amount)
