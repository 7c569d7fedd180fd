"""ValidatingAdmissionPolicy: rules over Deployments, with and without variables."""

from __future__ import annotations

from typing import Any

import pytest

conformance = pytest.mark.conformance
Obj = dict[str, Any]
SUITE = 'ValidatingAdmissionPolicy [Privileged:ClusterAdmin]'
GROUP = '/apis/admissionregistration.k8s.io/v1'
MARKED = {'namespaceSelector': {'matchLabels': {'policies': 'yes'}}}
RULE = {'apiGroups': ['apps'], 'apiVersions': ['v1'], 'operations': ['CREATE'], 'resources': ['deployments']}


async def enforce(api: Any, validations: list[Obj], variables: list[Obj] | None = None) -> None:
    """A policy on Deployments, bound to the marked namespace."""
    await api.post('/api/v1/namespaces', {'metadata': {'name': 'marked', 'labels': {'policies': 'yes'}}})
    spec = {'matchConstraints': {'resourceRules': [RULE]}, 'validations': validations, 'variables': variables or []}
    made = await api.post(f'{GROUP}/validatingadmissionpolicies', {'metadata': {'name': 'p'}, 'spec': spec})
    assert made.status == 201, made.text
    status = made.json['status']
    assert status == {'observedGeneration': 1, 'typeChecking': {}}  # a client waits for it before it goes on
    bound = {'policyName': 'p', 'validationActions': ['Deny'], 'matchResources': MARKED}
    made = await api.post(f'{GROUP}/validatingadmissionpolicybindings', {'metadata': {'name': 'b'}, 'spec': bound})
    assert made.status == 201, made.text


async def deploy(api: Any, name: str, replicas: int, namespace: str = 'marked') -> Any:
    labels = {'app': name}
    template = {'metadata': {'labels': labels}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}}
    spec = {'replicas': replicas, 'selector': {'matchLabels': labels}, 'template': template}
    path = f'/apis/apps/v1/namespaces/{namespace}/deployments'
    return await api.post(path, {'metadata': {'name': name}, 'spec': spec})


@conformance(f'{SUITE} should validate against a Deployment')
async def test_deployments_are_judged_where_the_binding_says(api):
    await enforce(api, [
        {'expression': 'object.spec.replicas > 1', 'messageExpression': "'wants more than ' + string(1) + ' replica'"},
        {'expression': "namespaceObject.metadata.name == 'marked'", 'message': 'wrong namespace'},
    ])  # fmt: skip
    refused = await deploy(api, 'one', 1)
    assert (refused.status, 'wants more than 1 replica' in refused.json['message']) == (422, True)
    assert (await deploy(api, 'two', 2)).status == 201
    assert (await deploy(api, 'elsewhere', 1, 'default')).status == 201


@conformance(f'{SUITE} should allow expressions to refer variables.')
async def test_expressions_refer_to_variables(api):
    variables = [
        {'name': 'replicas', 'expression': 'object.spec.replicas'},
        {'name': 'oddReplicas', 'expression': 'variables.replicas % 2 == 1'},
    ]
    judged = [
        {'expression': 'variables.replicas > 1'},
        {'expression': 'variables.oddReplicas', 'messageExpression': "'odd wanted, not ' + string(variables.replicas)"},
    ]
    await enforce(api, judged, variables)
    assert (await deploy(api, 'one', 1)).status == 422
    assert 'odd wanted, not 2' in (await deploy(api, 'two', 2)).json['message']
    assert (await deploy(api, 'three', 3)).status == 201
