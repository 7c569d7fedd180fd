"""Expansion and the sources of environment variables."""

from __future__ import annotations

import base64

import pytest

from knode.errors import ContainerConfigError
from knode.pods.environment import Facts, Sources, environment
from knode.pods.expand import expand

FACTS = Facts('127.64.0.2', '127.0.0.1', 'n1', {'cpu': '4', 'memory': '8Gi'})


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('$(A)', 'a'), ('x$(A)y$(A)', 'xaya'), ('$$(A)', '$(A)'), ('$$$(A)', '$a'), ('$(NO)', '$(NO)'), ('$A', '$A'),
        ('$', '$'), ('$$', '$'), ('$(', '$('), ('$()', '$()'), ('a$(A', 'a$(A'),
    ],
)  # fmt: skip
def test_references_expand_as_upstream(text, expected):
    assert expand(text, {'A': 'a'}) == expected


NONE = Sources()


def env_of(make_pod, sources=NONE, **container):
    pod = make_pod(containers=[{'name': 'c', 'image': 'x', **container}], nodeName='n1')
    return environment(pod, pod['spec']['containers'][0], FACTS, sources)


def test_later_variables_see_earlier_ones(make_pod):
    got = env_of(
        make_pod, env=[{'name': 'A', 'value': '1'}, {'name': 'B', 'value': '$(A)2$(C)'}, {'name': 'C', 'value': '3'}]
    )
    assert got == {'A': '1', 'B': '12$(C)', 'C': '3'}


@pytest.mark.parametrize(
    ('path', 'expected'),
    [
        ('metadata.name', 'p'), ('metadata.namespace', 'default'), ('metadata.uid', 'u1'),
        ("metadata.labels['app']", 'x'),
        ("metadata.annotations['none']", ''), ('spec.nodeName', 'n1'), ('status.podIP', '127.64.0.2'),
        ('status.hostIP', '127.0.0.1'), ('spec.serviceAccountName', 'default'),
    ],
)  # fmt: skip
def test_the_downward_api_knows_the_pod(make_pod, path, expected):
    assert env_of(make_pod, env=[{'name': 'X', 'valueFrom': {'fieldRef': {'fieldPath': path}}}]) == {'X': expected}


@pytest.mark.parametrize(
    ('ref', 'expected'),
    [
        ({'resource': 'limits.cpu'}, '2'), ({'resource': 'limits.cpu', 'divisor': '1m'}, '1500'),
        ({'resource': 'requests.cpu', 'divisor': '1m'}, '1500'),
        ({'resource': 'limits.memory', 'divisor': '1Mi'}, '8192'),
    ],
)  # fmt: skip
def test_resources_are_divided_and_rounded_up(make_pod, ref, expected):
    got = env_of(
        make_pod, resources={'limits': {'cpu': '1500m'}}, env=[{'name': 'X', 'valueFrom': {'resourceFieldRef': ref}}]
    )
    assert got == {'X': expected}


def test_config_maps_and_secrets_fill_the_environment(make_pod):
    sources = Sources({'m': {'data': {'K': 'v'}}}, {'s': {'data': {'P': base64.b64encode(b'w').decode()}}})
    got = env_of(
        make_pod, sources, envFrom=[{'configMapRef': {'name': 'm'}, 'prefix': 'X_'}, {'secretRef': {'name': 's'}}],
        env=[{'name': 'A', 'valueFrom': {'configMapKeyRef': {'name': 'm', 'key': 'K'}}}],
    )  # fmt: skip
    assert got == {'X_K': 'v', 'P': 'w', 'A': 'v'}


@pytest.mark.parametrize(
    ('ref', 'message'),
    [
        ({'configMapKeyRef': {'name': 'no', 'key': 'K'}}, 'configmap "no" not found'),
        ({'secretKeyRef': {'name': 'no', 'key': 'K'}}, 'secret "no" not found'),
        ({'configMapKeyRef': {'name': 'm', 'key': 'no'}}, "couldn't find key no in ConfigMap default/m"),
    ],
)
def test_a_missing_reference_is_named(make_pod, ref, message):
    with pytest.raises(ContainerConfigError, match=message):
        env_of(make_pod, Sources({'m': {'data': {'K': 'v'}}}), env=[{'name': 'A', 'valueFrom': ref}])


def test_an_optional_reference_may_be_missing(make_pod):
    ref = {'configMapKeyRef': {'name': 'no', 'key': 'K', 'optional': True}}
    assert env_of(make_pod, env=[{'name': 'A', 'valueFrom': ref}]) == {}


def test_services_of_the_namespace_appear_as_variables(make_pod):
    service = {
        'metadata': {'name': 'my-db', 'namespace': 'default'},
        'spec': {'clusterIP': '127.96.0.9', 'ports': [{'name': 'sql', 'port': 5432}]},
    }
    got = env_of(make_pod, Sources(services=[service]))
    assert got['MY_DB_SERVICE_HOST'] == '127.96.0.9'
    assert got['MY_DB_SERVICE_PORT_SQL'] == '5432'
    assert got['MY_DB_PORT_5432_TCP'] == 'tcp://127.96.0.9:5432'
