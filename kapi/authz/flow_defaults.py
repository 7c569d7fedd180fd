"""The flow schemas and priority levels that every cluster begins with. Source: apis flowcontrol/bootstrap/default.go.

Agents, leases and controllers have levels of their own, so that no flood of ordinary requests starves them.
"""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]
AUTOUPDATE = 'apf.kubernetes.io/autoupdate-spec'
ANNOTATIONS = {AUTOUPDATE: 'true'}


def _limited(name: str, shares: int, lendable: int, queues: int = 0, hand: int = 0) -> Obj:
    response: Obj = {'type': 'Reject'}
    if queues:
        response = {'type': 'Queue', 'queuing': {'queues': queues, 'handSize': hand, 'queueLengthLimit': 50}}
    limited = {'nominalConcurrencyShares': shares, 'lendablePercent': lendable, 'limitResponse': response}
    return _object(name, {'type': 'Limited', 'limited': limited})


def _object(name: str, spec: Obj) -> Obj:
    return {'metadata': {'name': name, 'annotations': dict(ANNOTATIONS)}, 'spec': spec}


LEVELS: tuple[Obj, ...] = (
    _object('exempt', {'type': 'Exempt', 'exempt': {'nominalConcurrencyShares': 0, 'lendablePercent': 0}}),
    _limited('system', 30, 33, 64, 6),
    _limited('node-high', 40, 25, 64, 6),
    _limited('leader-election', 10, 0, 16, 4),
    _limited('workload-high', 40, 50, 128, 6),
    _limited('workload-low', 100, 90, 128, 6),
    _limited('global-default', 20, 50, 128, 6),
    _limited('catch-all', 5, 0),
)


def user(name: str) -> Obj:
    return {'kind': 'User', 'user': {'name': name}}


def group(name: str) -> Obj:
    return {'kind': 'Group', 'group': {'name': name}}


def account(namespace: str, name: str) -> Obj:
    return {'kind': 'ServiceAccount', 'serviceAccount': {'namespace': namespace, 'name': name}}


def _resources(verbs: list[str], groups: list[str], resources: list[str], namespaces: list[str]) -> Obj:
    rule: Obj = {'verbs': verbs, 'apiGroups': groups, 'resources': resources, 'namespaces': namespaces}
    return {**rule, 'clusterScope': True}


def _namespaced(verbs: list[str], group: str, resource: str) -> Obj:
    return {'verbs': verbs, 'apiGroups': [group], 'resources': [resource], 'namespaces': ['*']}


_ALL = _resources(['*'], ['*'], ['*'], ['*'])
_PATHS: Obj = {'verbs': ['*'], 'nonResourceURLs': ['*']}
_HEALTH: Obj = {'verbs': ['get', 'head'], 'nonResourceURLs': ['/healthz', '/healthz/*', '/livez', '/livez/*', '/readyz',
                                                              '/readyz/*']}  # fmt: skip
_WRITES = ['get', 'create', 'update']


def _schema(name: str, level: str, precedence: int, method: str, *rules: Obj) -> Obj:
    spec: Obj = {
        'priorityLevelConfiguration': {'name': level}, 'matchingPrecedence': precedence, 'rules': list(rules)
    }  # fmt: skip
    if method:
        spec['distinguisherMethod'] = {'type': method}
    return _object(name, spec)


def _rule(subjects: list[Obj], *resources: Obj, paths: Obj | None = None) -> Obj:
    found: Obj = {'subjects': subjects, 'resourceRules': list(resources)}
    return {**found, 'nonResourceRules': [paths]} if paths is not None else found


_MANAGER, _SCHEDULER = user('system:kube-controller-manager'), user('system:kube-scheduler')
_NODE_RESOURCES = (
    _resources(['*'], [''], ['nodes', 'nodes/status'], ['*']),
    _namespaced(['*'], 'coordination.k8s.io', 'leases'),
)
_LEASES = _namespaced(_WRITES, 'coordination.k8s.io', 'leases')
_SYSTEM_ACCOUNTS = account('kube-system', '*')
_ENDPOINTS_WRITERS = [
    _MANAGER, account('kube-system', 'endpoint-controller'), account('kube-system', 'endpointslicemirroring-controller')
]  # fmt: skip
_EVERYBODY = [group('system:authenticated'), group('system:unauthenticated')]
MANDATORY = frozenset({'exempt', 'catch-all'})
"""Schemas and levels that hold even if somebody deletes them."""
SCHEMAS: tuple[Obj, ...] = (
    _schema('exempt', 'exempt', 1, '', _rule([group('system:masters')], _ALL, paths=_PATHS)),
    _schema('probes', 'exempt', 2, '', {'subjects': list(_EVERYBODY), 'nonResourceRules': [_HEALTH]}),
    _schema('system-leader-election', 'leader-election', 100, 'ByUser',
            _rule([_MANAGER, _SCHEDULER, _SYSTEM_ACCOUNTS], _LEASES)),
    _schema('endpoint-controller', 'workload-high', 150, 'ByUser',
            _rule(_ENDPOINTS_WRITERS, _namespaced(_WRITES, '', 'endpoints'))),
    _schema('workload-leader-election', 'leader-election', 200, 'ByUser', _rule([_SYSTEM_ACCOUNTS], _LEASES)),
    _schema('system-node-high', 'node-high', 400, 'ByUser', _rule([group('system:nodes')], *_NODE_RESOURCES)),
    _schema('system-nodes', 'system', 500, 'ByUser', _rule([group('system:nodes')], _ALL, paths=_PATHS)),
    _schema('kube-controller-manager', 'workload-high', 800, 'ByNamespace', _rule([_MANAGER], _ALL, paths=_PATHS)),
    _schema('kube-scheduler', 'workload-high', 800, 'ByNamespace', _rule([_SCHEDULER], _ALL, paths=_PATHS)),
    _schema('kube-system-service-accounts', 'workload-high', 900, 'ByNamespace',
            _rule([_SYSTEM_ACCOUNTS], _ALL, paths=_PATHS)),
    _schema('service-accounts', 'workload-low', 9000, 'ByUser',
            _rule([group('system:serviceaccounts')], _ALL, paths=_PATHS)),
    _schema('global-default', 'global-default', 9900, 'ByUser', _rule(list(_EVERYBODY), _ALL, paths=_PATHS)),
    _schema('catch-all', 'catch-all', 10000, 'ByUser', _rule(list(_EVERYBODY), _ALL, paths=_PATHS)),
)  # fmt: skip
