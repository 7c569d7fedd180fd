"""Protobuf bodies as kubectl 1.33 sent them (`captured/*.pb`), decoded to what JSON would have said."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapi.schemas.builtin import find
from kapi.schemas.protobuf import MAGIC, ProtobufError, decode

CAPTURED = sorted((Path(__file__).parent / 'captured').glob('*.pb'))


def captured(name):
    return decode((Path(__file__).parent / 'captured' / f'{name}.pb').read_bytes())


@pytest.mark.parametrize('path', CAPTURED, ids=lambda p: p.stem)
def test_every_captured_body_fits_the_schema_of_its_kind(path):
    obj = decode(path.read_bytes())
    group, _, version = obj['apiVersion'].rpartition('/')
    schema = find(group, version, obj['kind'])
    assert schema.is_valid(obj), schema.inspect(obj)


def test_a_pointer_keeps_its_zero_and_a_plain_field_loses_it():
    spec = captured('deployment')['spec']
    assert spec['replicas'] == 0
    assert 'minReadySeconds' not in spec
    assert spec['template']['spec']['containers'] == [
        {'name': 'nginx', 'image': 'nginx', 'ports': [{'containerPort': 80}], 'resources': {}}
    ]
    assert captured('priorityclass')['value'] == 0


def test_maps_keep_empty_values_and_bytes_become_base64():
    assert captured('configmap')['data'] == {'a': 'b', 'e': ''}
    assert captured('secret')['data'] == {'a': 'Yg=='}


def test_quantities_and_int_or_strings_take_their_json_forms():
    assert captured('quota')['spec']['hard'] == {'cpu': '1', 'memory': '1G', 'pods': '2'}
    assert captured('pdb')['spec']['minAvailable'] == '50%'
    assert captured('service')['spec']['ports'][0]['targetPort'] == 8080
    assert captured('nodeport')['spec']['ports'][0]['targetPort'] == 'http'


def test_inlined_messages_merge_into_their_parent():
    path = captured('ingress')['spec']['rules'][0]
    assert path['http']['paths'][0]['backend'] == {'service': {'name': 'svc', 'port': {'number': 80}}}


@pytest.mark.parametrize('body', [b'', b'{}', b'k8s\x00\xff', MAGIC + b'\x0a\x02\x0a', MAGIC])
def test_what_is_no_protobuf_is_refused(body):
    with pytest.raises(ProtobufError):
        decode(body)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ProtobufError, match='no protobuf definition is known for x/v1 Y'):
        decode(MAGIC + b'\x0a\x09\x0a\x04x/v1\x12\x01Y')


def test_a_newer_field_is_skipped_when_zero_and_refused_otherwise():
    def config_map(extra):
        meta = b'\x0a\x0f\x0a\x02v1\x12\x09ConfigMap'
        return MAGIC + meta + b'\x12' + bytes([len(extra)]) + extra

    assert decode(config_map(b'\xf8\x3f\x00')) == {'kind': 'ConfigMap', 'apiVersion': 'v1'}
    with pytest.raises(ProtobufError, match='field number 1023'):
        decode(config_map(b'\xf8\x3f\x01'))


@given(st.sampled_from(CAPTURED), st.integers(0, 300), st.binary(min_size=1, max_size=3))
def test_a_damaged_body_is_decoded_or_refused_but_nothing_else(path, at, noise):
    body = path.read_bytes()
    with contextlib.suppress(ProtobufError):
        decode(body[:at] + noise + body[at:])
