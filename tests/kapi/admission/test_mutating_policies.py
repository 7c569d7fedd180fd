"""MutatingAdmissionPolicy: what CEL may change, and what happens when it goes wrong."""

from __future__ import annotations

from typing import Any

import pytest

from kapi.admission.cel import CelError
from kapi.admission.celobjects import plain

CORE = '/api/v1/namespaces/default'
GROUP = '/apis/admissionregistration.k8s.io/v1'
Obj = dict[str, Any]


def rule(resource: str, group: str = '') -> Obj:
    return {'apiGroups': [group], 'apiVersions': ['v1'], 'operations': ['CREATE', 'UPDATE'], 'resources': [resource]}


async def install(api: Any, name: str, *mutations: Obj, resource: str = 'configmaps', **more: Any) -> None:
    binding = more.pop('binding', {})
    spec = {'matchConstraints': {'resourceRules': [rule(resource)]}, 'mutations': list(mutations), **more}
    made = await api.post(f'{GROUP}/mutatingadmissionpolicies', {'metadata': {'name': name}, 'spec': spec})
    assert made.status == 201, made.text
    body = {'metadata': {'name': name}, 'spec': {'policyName': name, **binding}}
    assert (await api.post(f'{GROUP}/mutatingadmissionpolicybindings', body)).status == 201
    await api.get(f'{GROUP}/mutatingadmissionpolicybindings')


def apply(expression: str) -> Obj:
    return {'patchType': 'ApplyConfiguration', 'applyConfiguration': {'expression': expression}}


def patch(expression: str) -> Obj:
    return {'patchType': 'JSONPatch', 'jsonPatch': {'expression': expression}}


def configmap(name: str = 'c', **data: str) -> Obj:
    return {'metadata': {'name': name, 'labels': {'a': 'b'}}, 'data': data or {'k': 'v'}}


async def test_an_apply_configuration_is_merged_by_the_schema(api: Any):
    sidecar = """Object{spec: Object.spec{
        initContainers: [Object.spec.initContainers{
            name: "mesh-proxy", image: "mesh/proxy:v1", restartPolicy: "Always"}],
        containers: object.spec.containers.map(c, Object.spec.containers{name: c.name, imagePullPolicy: "Never"})
    }}"""
    guard = [{'name': 'once', 'expression': '!has(object.spec.initContainers)'}]
    await install(api, 'mesh', apply(sidecar), resource='pods', matchConditions=guard)
    await api.post(f'{CORE}/serviceaccounts', {'metadata': {'name': 'default'}})
    containers = [{'name': 'a', 'image': 'i', 'env': [{'name': 'E', 'value': '1'}]}, {'name': 'b', 'image': 'j'}]
    made = await api.post(f'{CORE}/pods', {'metadata': {'name': 'p'}, 'spec': {'containers': containers}})
    assert made.status == 201, made.text
    spec = made.json['spec']
    assert [(c['name'], c['restartPolicy']) for c in spec['initContainers']] == [('mesh-proxy', 'Always')]
    assert [(c['name'], c['image'], c['imagePullPolicy']) for c in spec['containers']] == [
        ('a', 'i', 'Never'), ('b', 'j', 'Never'),
    ]  # fmt: skip
    assert spec['containers'][0]['env'] == [{'name': 'E', 'value': '1'}]
    assert spec['initContainers'][0]['terminationMessagePath'] == '/dev/termination-log'


async def test_a_json_patch_adds_and_tests_and_escapes_keys(api: Any):
    expression = """[
        JSONPatch{op: "test", path: "/metadata/labels/a", value: "b"},
        JSONPatch{op: "add", path: "/metadata/labels/" + jsonpatch.escapeKey("example.com/env"), value: "test"},
    ]"""
    await install(api, 'label', patch(expression))
    made = await api.post(f'{CORE}/configmaps', configmap())
    assert made.json['metadata']['labels'] == {'a': 'b', 'example.com/env': 'test'}
    refused = await api.patch(f'{CORE}/configmaps/c', {'metadata': {'labels': {'a': 'other'}}})
    assert refused.status == 422
    assert "policy 'label' with binding 'label' denied request: JSON Patch" in refused.json['message']


async def test_variables_parameters_and_a_ternary_within_an_object_work(api: Any):
    await api.post(f'{CORE}/configmaps', {'metadata': {'name': 'params'}, 'data': {'team': 'blue'}})
    variables = [{'name': 'team', 'expression': "has(params.data.team) ? params.data.team : 'none'"}]
    expression = "Object{data: Object.data{team: variables.team == 'blue' ? 'b' : 'x', who: request.userInfo.username}}"
    ref = {'name': 'params', 'namespace': 'default', 'parameterNotFoundAction': 'Deny'}
    kind = {'apiVersion': 'v1', 'kind': 'ConfigMap'}
    await install(api, 'p', apply(expression), variables=variables, paramKind=kind, binding={'paramRef': ref})
    made = await api.post(f'{CORE}/configmaps', configmap())
    assert made.json['data'] == {'k': 'v', 'team': 'b', 'who': 'admin'}


@pytest.mark.parametrize(('mutation', 'why'), [
    (apply('Object{spec: Object.spec{containers: [Object.spec.containers{name: "c", args: ["x"]}]}}'), 'atomic arrays'),
    (apply('Object{spec: Object.spec{nonsense: 1, priority: "high"}}'), 'the mutation makes no Pod'),
    (apply('object.spec.nosuch'), 'no such key'),
    (patch('"text"'), 'must be a list'),
])  # fmt: skip
async def test_what_cannot_be_done_refuses_the_write_unless_told_to_ignore(api: Any, mutation: Obj, why: str):
    await api.post(f'{CORE}/serviceaccounts', {'metadata': {'name': 'default'}})
    await install(api, 'bad', mutation, resource='pods')
    pod = {'metadata': {'name': 'p'}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}}
    refused = await api.post(f'{CORE}/pods', pod)
    assert (refused.status, why in refused.json['message']) == (422, True), refused.text
    await api.patch(f'{GROUP}/mutatingadmissionpolicies/bad', {'spec': {'failurePolicy': 'Ignore'}})
    made = await api.post(f'{CORE}/pods', pod)
    assert made.status == 201, made.text
    assert 'args' not in made.json['spec']['containers'][0]


async def test_a_policy_that_asks_for_it_runs_again_after_a_later_one(api: Any):
    first = (
        'has(object.data.late) ? Object{data: Object.data{first: "saw it"}} : Object{data: Object.data{first: "no"}}'
    )
    await install(api, 'a', apply(first), reinvocationPolicy='IfNeeded')
    await install(api, 'b', apply('Object{data: Object.data{late: "yes"}}'))
    assert (await api.post(f'{CORE}/configmaps', configmap())).json['data'] == {
        'k': 'v', 'first': 'saw it', 'late': 'yes',
    }  # fmt: skip


async def test_a_policy_without_mutations_or_with_a_broken_one_is_not_accepted(api: Any):
    path = f'{GROUP}/mutatingadmissionpolicies'
    match = {'resourceRules': [rule('configmaps')]}
    for mutations, field in (([], 'spec.mutations'), ([apply('Object{')], 'spec.mutations[0].applyConfiguration'),
                             ([{'patchType': 'JSONPatch'}], 'spec.mutations[0].jsonPatch.expression'),
                             ([{'patchType': 'x'}], 'spec.mutations[0].patchType')):  # fmt: skip
        body = {'metadata': {'name': 'x'}, 'spec': {'matchConstraints': match, 'mutations': mutations}}
        refused = await api.post(path, body)
        assert (refused.status, field in refused.text) == (422, True), refused.text


@pytest.mark.parametrize(('text', 'wanted'), [
    ('Object{}', '{}'),
    ('Object{a: 1}', '{"a": 1}'),
    ('Object{a: Object.a{b: [Object.b{c: x ? y : z}], d: {"k": v}}}',
     '{"a": {"b": [{"c": x ? y : z}], "d": {"k": v}}}'),
    ('"Object{a: 1}" + \'JSONPatch{\'', '"Object{a: 1}" + \'JSONPatch{\''),
    ('[JSONPatch{op: "add", path: f(a, b), value: {x: y}}]', '[{"op": "add", "path": f(a, b), "value": {x: y}}]'),
    ('object.map(c, Object.x{n: c.name})', 'object.map(c, {"n": c.name})'),
    ('Object{ // why: so\n a: 1}', '{   "a": 1}'),
    ('has(object.Object) && {a: b} == c', 'has(object.Object) && {a: b} == c'),
])  # fmt: skip
def test_object_literals_become_maps(text: str, wanted: str):
    assert plain(text) == wanted


def test_optional_fields_are_refused():
    with pytest.raises(CelError, match='optional'):
        plain('Object{?a: b}')
