"""How wide lists are, and which schema the requests of the cluster's own clients match."""

from __future__ import annotations

import pytest

from kapi.authn.user import MASTERS, User
from kapi.authz.flow_defaults import SCHEMAS
from kapi.flow.matching import flow_of, matches
from kapi.flow.work import WIDTH_MAX, width, width_max
from kapi.server import requestinfo

PODS = '/api/v1/namespaces/default/pods'


@pytest.mark.parametrize(('query', 'stored', 'wide'), [
    ('', 50, 1), ('', 101, 2), ('', 100_000, WIDTH_MAX), ('?limit=500', 10_000, 5), ('?limit=x', 300, 3),
    ('?limit=500&resourceVersion=0', 900, 9), ('?limit=100&labelSelector=a%3Db', 900, 9),
    ('?fieldSelector=metadata.name%3Dx', 10_000, 1), ('?limit=100&continue=t', 10_000, 2),
    ('?limit=100&continue=t&labelSelector=a', 500, 6), ('?resourceVersion=5&resourceVersionMatch=Exact', 200, 4),
    ('?watch=true', 10_000, 1), ('?watch=true&sendInitialEvents=true', 250, 3),
    ('/x', 10_000, 1), ('/x?watch=1&sendInitialEvents=true', 10_000, 1),
])  # fmt: skip
def test_a_list_is_as_wide_as_the_objects_it_looks_at(query: str, stored: int, wide: int) -> None:
    assert width(requestinfo.of('GET', PODS + query), stored, WIDTH_MAX) == wide


@pytest.mark.parametrize(('nominal', 'hand', 'most'), [(245, 6, 10), (49, 6, 8), (10, 6, 1), (0, 6, 1), (60, 0, 9)])
def test_no_request_fills_its_level(nominal: int, hand: int, most: int) -> None:
    assert width_max(nominal, hand) == most


@pytest.mark.parametrize('subject', [{}, {'kind': 'User'}, {'kind': 'Group', 'group': {}}, {'kind': 'ServiceAccount'}])
def test_a_subject_that_lacks_what_its_kind_needs_is_nobody(subject: dict[str, object]) -> None:
    path = {'verbs': ['*'], 'nonResourceURLs': ['*']}
    schema = {'spec': {'rules': [{'subjects': [subject], 'nonResourceRules': [path]}]}}
    assert not matches(schema, requestinfo.of('GET', '/apis'), NODE)


NODE = User('system:node:n1', ('system:nodes', 'system:authenticated'))
MANAGER = User('system:kube-controller-manager', ('system:authenticated',))
SYSTEM_ACCOUNTS = ('system:serviceaccounts', 'system:serviceaccounts:kube-system', 'system:authenticated')
DNS = User('system:serviceaccount:kube-system:dns', SYSTEM_ACCOUNTS)
APP = User('system:serviceaccount:default:app', ('system:serviceaccounts', 'system:authenticated'))
LEASES = '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x'


@pytest.mark.parametrize(('method', 'path', 'user', 'schema', 'flow'), [
    ('GET', PODS, User('root', (MASTERS, 'system:authenticated')), 'exempt', ''),
    ('GET', '/livez', User('system:anonymous', ('system:unauthenticated',)), 'probes', ''),
    ('PUT', LEASES, MANAGER, 'system-leader-election', MANAGER.name),
    ('PUT', LEASES, DNS, 'system-leader-election', DNS.name),
    ('PUT', '/api/v1/namespaces/default/endpoints/x', MANAGER, 'endpoint-controller', MANAGER.name),
    ('PUT', LEASES, NODE, 'system-node-high', NODE.name),
    ('PATCH', '/api/v1/nodes/n1/status', NODE, 'system-node-high', NODE.name),
    ('GET', PODS, NODE, 'system-nodes', NODE.name),
    ('GET', PODS, MANAGER, 'kube-controller-manager', 'default'),
    ('GET', PODS, DNS, 'kube-system-service-accounts', 'default'),
    ('GET', PODS, APP, 'service-accounts', APP.name),
    ('GET', PODS, User('bob', ('system:authenticated',)), 'global-default', 'bob'),
])  # fmt: skip
def test_requests_of_the_cluster_match_the_schemas_meant_for_them(
    method: str, path: str, user: User, schema: str, flow: str
) -> None:
    info = requestinfo.of(method, path)
    order = sorted(SCHEMAS, key=lambda s: s['spec']['matchingPrecedence'])
    first = next(s for s in order if matches(s, info, user))
    assert (first['metadata']['name'], flow_of(first, info, user)) == (schema, flow)
