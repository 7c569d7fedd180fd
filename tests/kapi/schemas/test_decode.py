"""Bodies against schemas: the texts that clients and the conformance suite look for."""

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapi.kinds import KINDS
from kapi.schemas import DecodeError, StrictError, conform, parse_json, schema_for
from kapi.schemas.decode import MAX_DEPTH
from kcore.meta import gvk

DEPLOYMENT = schema_for(gvk.DEPLOYMENTS)
PREFIX = 'Deployment in version "v1" cannot be handled as a Deployment: '


def strict(body):
    return conform(parse_json(body), DEPLOYMENT, 'Strict')


def test_a_good_body_passes_unchanged():
    obj = {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'metadata': {'name': 'x'}, 'spec': {'replicas': 1}}
    assert strict(orjson.dumps(obj)) == (obj, [])


def test_unknown_and_duplicate_fields_are_told_in_document_order():
    with pytest.raises(StrictError) as raised:
        strict(b'{"spec": {"unknownField": "foo", "replicas": 1, "replicas": 2}}')
    assert (
        str(raised.value)
        == PREFIX + 'strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas"'
    )


def test_without_strictness_they_are_warnings_and_gone():
    body = b'{"spec": {"unknownField": {"a": 1}, "replicas": 1, "replicas": 2}}'
    obj, warnings = conform(parse_json(body), DEPLOYMENT, 'Warn')
    assert obj == {'spec': {'replicas': 2}}
    assert warnings == ['unknown field "spec.unknownField"', 'duplicate field "spec.replicas"']
    assert conform(parse_json(body), DEPLOYMENT, 'Ignore') == (obj, [])


@pytest.mark.parametrize(
    ('body', 'text'),
    [
        (
            b'{"spec":{"replicas":"x"}}',
            'unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32',
        ),
        (
            b'{"spec":{"replicas":1.5}}',
            'unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32',
        ),
        (b'{"spec":{"replicas":9999999999}}', 'unmarshal number 9999999999 into Go struct field'),
        (
            b'{"spec":{"replicas":true}}',
            'unmarshal bool into Go struct field DeploymentSpec.spec.replicas of type int32',
        ),
        (
            b'{"metadata":{"labels":{"a":1}}}',
            'unmarshal number into Go struct field ObjectMeta.metadata.labels of type string',
        ),
        (
            b'{"spec":{"template":{"spec":{"containers":{}}}}}',
            'PodSpec.spec.template.spec.containers of type []v1.Container',
        ),
        (
            b'{"spec":{"template":{"spec":{"containers":[{"image":3}]}}}}',
            'Container.spec.template.spec.containers.image',
        ),
        (b'{"spec":[]}', 'unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec'),
        (b'{"metadata":{"creationTimestamp":"x"}}', 'parsing time "x" as "2006-01-02T15:04:05Z07:00"'),
        (
            b'{"spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"1x"}}}]}}}}',
            'quantities must match',
        ),
    ],
)
def test_a_wrong_type_is_always_refused_in_gos_words(body, text):
    for validation in ('Strict', 'Warn', 'Ignore'):
        with pytest.raises(DecodeError) as raised:
            conform(parse_json(body), DEPLOYMENT, validation)
        assert str(raised.value).startswith(PREFIX)
        assert text in str(raised.value)


def test_a_null_is_an_absent_field():
    obj, _ = strict(b'{"metadata":{"name":"x","creationTimestamp":null,"labels":{"a":null}},"spec":null}')
    assert obj == {'metadata': {'name': 'x', 'labels': {'a': ''}}}


def test_a_list_path_carries_its_index():
    with pytest.raises(StrictError, match=r'unknown field "spec.template.spec.containers\[1\].nam"'):
        strict(b'{"spec":{"template":{"spec":{"containers":[{"name":"a"},{"nam":"b"}]}}}}')


def test_broken_base64_is_refused():
    with pytest.raises(DecodeError, match='illegal base64 data'):
        conform({'data': {'a': '!'}}, schema_for(gvk.SECRETS))


def test_depth_is_bounded():
    deep = b'{"a":' * (MAX_DEPTH + 50) + b'1' + b'}' * (MAX_DEPTH + 50)
    with pytest.raises(DecodeError, match='nested deeper'):
        parse_json(deep)


@pytest.mark.parametrize('kind', KINDS, ids=lambda k: str(k.resource))
def test_every_kind_has_a_schema(kind):
    schema = schema_for(kind.resource)
    good = {'apiVersion': kind.resource.api_version, 'kind': kind.resource.kind, 'metadata': {'name': 'x'}}
    assert schema.is_valid(good)
    assert not schema.is_valid({'nope': 1})


def test_empty_optional_lists_and_maps_are_left_out_as_by_a_go_server():
    pod = {'containers': [], 'volumes': [], 'nodeSelector': {}, 'securityContext': {}}
    template = {'metadata': {'labels': {}}, 'spec': pod}
    obj = {'metadata': {'annotations': {}, 'labels': {'a': ''}}, 'spec': {'template': template}}
    made, warnings = conform(obj, DEPLOYMENT)
    assert not warnings
    assert made == {
        'metadata': {'labels': {'a': ''}},
        'spec': {'template': {'metadata': {}, 'spec': {'containers': [], 'securityContext': {}}}},
    }


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(['spec', 'metadata', 'template', 'containers', 'labels', 'x']), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(['spec', 'metadata', 'status', 'x']), _junk, max_size=3))
def test_any_object_is_either_refused_or_made_valid(obj):
    try:
        made, _ = conform(obj, DEPLOYMENT, 'Warn')
    except DecodeError:
        return
    assert DEPLOYMENT.is_valid(made)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_never_fail_in_another_way(body):
    with contextlib.suppress(DecodeError):
        parse_json(body)
