"""Types of CEL expressions: what is wrong is told in cel-go's words, and nothing that is right is complained of."""

from __future__ import annotations

from typing import Any

import pytest

from kapi.admission.celtypes import Checker, type_of
from kapi.admission.typechecking import UNTYPED
from kapi.server.schemas import Schemas
from kcore.meta.gvk import DEPLOYMENTS
from tests.kapi.crd.conftest import Custom, acting, definition

GROUP = '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies'
DEPLOYMENT = type_of(Schemas().node(DEPLOYMENTS))
NAMES = {**UNTYPED, 'object': DEPLOYMENT, 'oldObject': DEPLOYMENT}

GOOD = [
    'object.spec.replicas > 1', "object.metadata.labels['a'] == 'b'",
    "has(object.metadata.labels) && 'a' in object.metadata.labels",
    "object.metadata.name.startsWith('x') || object.metadata.name.matches('^a')", 'object.spec.replicas > 1.5',
    "object.spec.template.spec.containers.all(c, c.image.contains(':') && c.ports.exists(p, p.containerPort > 1024))",
    "object.spec.template.spec.containers.filter(c, has(c.image)).map(c, c.image).size() == 2",
    "quantity(object.spec.template.spec.containers[0].resources.limits['cpu']).isLessThan(quantity('1'))",
    "request.userInfo.groups.exists(g, g == 'dev') && request.userInfo.extra['a'][0] == 'b'",
    "object.metadata.creationTimestamp > timestamp('2020-01-01T00:00:00Z') + duration('1h')",
    "oldObject == null || oldObject.spec.replicas <= object.spec.replicas", "params.anything.goes[3] + 1 == 2",
    "(object.spec.replicas > 1 ? 'many' : 'one') == 'one'", "object.metadata.annotations.exists(k, k.startsWith('x'))",
    "authorizer.group('').resource('pods').check('get').allowed()",
    "authorizer.requestResource.check('x').reason() == ''",
    "namespaceObject.metadata.labels.env == 'prod'", "sets.contains(['a', 'b'], ['a']) && [1, 2].sum() == 3",
    "'%s has %d'.format([object.metadata.name, object.spec.replicas]) != ''", "int(object.spec.replicas) % 2 == 0",
    "object.spec.strategy.rollingUpdate.maxSurge == 1 || object.spec.strategy.rollingUpdate.maxSurge == '10%'",
    "!(object.spec.paused) && -object.spec.replicas < 0 && size(object.spec.template.spec.containers) > 0",
    'variables.known == 1 && {"a": 1}.a == 1 && [1, 2][0] == 1 && type(object.spec.replicas) == int',
    "object.spec.template.spec.containers.all(c, c.name in ['a', 'b']) // a remark",
    "b'x' == b'y' && r'\\d' != \"\"\"a\"b\"\"\"",
]  # fmt: skip

BAD = [
    ('object.spec.replicass > 1', 12, "undefined field 'replicass'"),
    ("object.spec.replicas > '1'", 22, "found no matching overload for '_>_' applied to '(int, string)'"),
    ('object.spec.replicas == "1"', 22, "found no matching overload for '_==_' applied to '(int, string)'"),
    ("object.spec.replicas + 'a' == 'b'", 22, "found no matching overload for '_+_' applied to '(int, string)'"),
    ('object.spec.replicas && true', 22, "found no matching overload for '_&&_' applied to '(int, bool)'"),
    ('!object.metadata.name', 1, "found no matching overload for '!_' applied to '(string)'"),
    ('objct.spec.replicas > 1', 1, "undeclared reference to 'objct' (in container '')"),
    ('foo(object.spec.replicas)', 4, "undeclared reference to 'foo' (in container '')"),
    ('object.spec.replicas.foo', 21, "type 'int' does not support field selection"),
    ("object.spec.replicas.startsWith('x')", 32,
     "found no matching overload for 'startsWith' applied to 'int.(string)'"),
    ('size(object.spec.replicas) == 1', 5, "found no matching overload for 'size' applied to '(int)'"),
    ("object.spec.template.spec.containers.all(c, c.imag == 'x')", 46, "undefined field 'imag'"),
    ('object.spec.replicas.all(x, true)', 12,
     "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)"),
    ("object.spec.replicas in ['a']", 22, "found no matching overload for '@in' applied to '(int, list(string))'"),
    ("object.metadata.labels[1] == 'a'", 23,
     "found no matching overload for '_[_]' applied to '(map(string, string), int)'"),
    ("object.spec.replicas ? 'a' : 'b'", 22,
     "found no matching overload for '_?_:_' applied to '(int, string, string)'"),
    ('request.usrInfo', 8, "undefined field 'usrInfo'"), ('variables.unknown == 1', 10, "undefined field 'unknown'"),
    ('variables.known && true', 17, "found no matching overload for '_&&_' applied to '(int, bool)'"),
]  # fmt: skip


def mistakes(text: str) -> list[str]:
    known = Checker('object.spec.replicas', NAMES).type
    return Checker(text, NAMES, {'known': known}).mistakes


@pytest.mark.parametrize('text', GOOD)
def test_what_is_right_is_not_complained_of(text: str) -> None:
    assert mistakes(text) == []


@pytest.mark.parametrize(('text', 'column', 'why'), BAD)
def test_what_is_wrong_is_told_with_its_place(text: str, column: int, why: str) -> None:
    assert mistakes(text) == [f'ERROR: <input>:1:{column}: {why}\n | {text}\n | {"." * (column - 1)}^']


def policy(*expressions: str, **spec: Any) -> dict[str, Any]:
    rule = {'operations': ['*'], 'apiGroups': ['apps', ''], 'apiVersions': ['v1', '*'],
            'resources': ['deployments', 'replicasets', 'deployments/scale', '*/status', 'nothing']}  # fmt: skip
    validations = [{'expression': e} for e in expressions]
    constraints = {'resourceRules': [rule]}
    return {'metadata': {'name': 'p'}, 'spec': {'matchConstraints': constraints, 'validations': validations, **spec}}


async def test_a_policy_says_what_does_not_suit_the_kinds_that_it_is_about(api: Any) -> None:
    variables = [{'name': 'n', 'expression': 'object.spec.replicas'}]
    body = policy('object.spec.replicas > 1', "object.spec.paused || variables.n == 'x'", variables=variables)
    status = (await api.post(GROUP, body)).json['status']
    (told,) = status['typeChecking']['expressionWarnings']
    assert told['fieldRef'] == 'spec.validations[1].expression'
    wrong = "found no matching overload for '_==_' applied to '(int, string)'"
    assert told['warning'].startswith(f'apps/v1, Kind=Deployment: ERROR: <input>:1:35: {wrong}\n | object.spec.paused')
    assert "\n\napps/v1, Kind=ReplicaSet: ERROR: <input>:1:12: undefined field 'paused'" in told['warning']
    mended = await api.patch(f'{GROUP}/p', {'spec': {'validations': [{'expression': 'object.spec.replicas > 1'}]}})
    assert mended.json['status'] == {'observedGeneration': 2, 'typeChecking': {}}


async def test_custom_resources_have_types_too(world: Any, api: Any) -> None:
    async with acting(world.server):
        await Custom(api).declare(definition({'type': 'object', 'properties': {'size': {'type': 'integer'}}}))
    body = policy('object.spec.size > 1', 'object.spec.seize > 1')
    body['spec']['matchConstraints']['resourceRules'][0] |= {
        'apiGroups': ['stable.example.com'], 'resources': ['crontabs']
    }  # fmt: skip
    (told,) = (await api.post(GROUP, body)).json['status']['typeChecking']['expressionWarnings']
    assert "stable.example.com/v1, Kind=CronTab: ERROR: <input>:1:12: undefined field 'seize'" in told['warning']


@pytest.mark.parametrize(('text', 'why'), [
    ('objct.spec', "undeclared reference to 'objct'"), ('nope(object)', "undeclared reference to 'nope'"),
    ("1 + 'a' == 2", "found no matching overload for '_+_' applied to '(int, string)'"),
    ('request.nme == ""', "undefined field 'nme'"), ('variables.x', "undefined field 'x'"),
])  # fmt: skip
async def test_what_is_wrong_whatever_is_judged_is_refused_with_the_policy(api: Any, text: str, why: str) -> None:
    refused = await api.post(GROUP, policy(text))
    assert refused.status == 422
    assert 'compilation failed: ERROR: <input>:1:' in refused.json['message']
    assert why in refused.json['message']


async def test_a_message_cannot_ask_the_authorizer(api: Any) -> None:
    rule = {'expression': 'true', 'messageExpression': "authorizer.path('/x').check('get').reason()"}
    refused = await api.post(GROUP, policy(validations=[rule]))
    assert (refused.status, "undeclared reference to 'authorizer'" in refused.text) == (422, True)
