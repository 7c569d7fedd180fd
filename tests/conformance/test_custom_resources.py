"""Custom resources as clients meet them: published schemas, discovery, field validation, and real kubectl on all that.

The life of a definition, defaulting, selectors and conversion stand in tests/kapi/crd, with their upstream names.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

conformance = pytest.mark.conformance
Obj = dict[str, Any]
CRDS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
ADDED = ('metadata', 'apiVersion', 'kind')
PRESERVE = 'x-kubernetes-preserve-unknown-fields'

FOO: Obj = {
    'type': 'object',
    'description': 'Foo CRD for testing.',
    'properties': {
        'spec': {
            'type': 'object',
            'description': 'Specification of Foo.',
            'properties': {
                'bars': {
                    'type': 'array',
                    'description': 'List of Bars and their specs.',
                    'items': {
                        'type': 'object',
                        'required': ['name'],
                        'properties': {
                            'name': {'type': 'string', 'description': 'Name of Bar.'},
                            'age': {'type': 'string', 'description': 'Age of Bar.'},
                            'feeling': {'type': 'string', 'enum': ['Great', 'Down']},
                            'bazs': {'type': 'array', 'description': 'List of Bazs.', 'items': {'type': 'string'}},
                        },
                    },
                }
            },
        },
        'status': {'type': 'object', 'description': 'Status of Foo.'},
    },
}
WALDO: Obj = {
    'type': 'object',
    'description': 'Waldo CRD for testing.',
    'properties': {'spec': {'type': 'object', 'properties': {'dummy': {'type': 'string'}}}},
}


def crd(group: str, kind: str, schema: Obj, *versions: str) -> Obj:
    """A definition of `group`.example.com; the first version is stored."""
    plural = f'{kind.lower()}s'
    return {
        'metadata': {'name': f'{plural}.{group}.example.com'},
        'spec': {
            'group': f'{group}.example.com',
            'scope': 'Namespaced',
            'names': {'plural': plural, 'singular': kind.lower(), 'kind': kind},
            'versions': [
                {'name': v, 'served': True, 'storage': v == versions[0], 'schema': {'openAPIV3Schema': schema}}
                for v in versions
            ],
        },
    }


async def published(api: Any, group: str, version: str, kind: str) -> Obj | None:
    """The v2 definition without what the server adds; the v3 document must agree on whether there is one."""
    name = f'com.example.{group}.{version}.{kind}'
    found = (await api.get('/openapi/v2')).json['definitions'].get(name)
    v3 = await api.get(f'/openapi/v3/apis/{group}.example.com/{version}')
    assert (found is not None) == (v3.status == 200 and name in v3.json['components']['schemas'])
    if found is None:
        return None
    assert found['x-kubernetes-group-version-kind'] == [
        {'group': f'{group}.example.com', 'version': version, 'kind': kind}
    ]
    if found.get(PRESERVE):
        return found
    assert set(ADDED) <= found['properties'].keys()
    own = {k: v for k, v in found['properties'].items() if k not in ADDED}
    return {**{k: v for k, v in found.items() if not k.startswith('x-kubernetes-group')}, 'properties': own}


async def accepts_anything(kubectl: Any, body: Obj) -> None:
    """kubectl validates, and lets it pass, by create and by apply."""
    for verb in ('create', 'apply'):
        assert 'created' in await kubectl(verb, '-f', '-', stdin=body)
        await kubectl('delete', body['kind'].lower(), body['metadata']['name'])


@conformance('CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD with validation schema')
async def test_kubectl_validates_and_explains_what_is_published(custom, kubectl):
    await custom.declare(crd('schema', 'Foo', FOO, 'v1'))
    assert await published(custom.api, 'schema', 'v1', 'Foo') == FOO
    body = {'apiVersion': 'schema.example.com/v1', 'kind': 'Foo', 'metadata': {'name': 'test'}}
    await accepts_anything(kubectl, {**body, 'spec': {'bars': [{'name': 'test-bar'}]}})
    for verb in ('create', 'apply'):
        unknown = await kubectl(verb, '-f', '-', stdin={**body, 'spec': {'foo': True}}, fails=True)
        assert 'unknown field "spec.foo"' in unknown
        absent = await kubectl(verb, '-f', '-', stdin={**body, 'spec': {'bars': [{'age': '10'}]}}, fails=True)
        assert 'spec.bars[0].name: Required value' in absent
        feeling = {'bars': [{'name': 'b', 'feeling': 'None'}]}
        wrong = await kubectl(verb, '-f', '-', stdin={**body, 'spec': feeling}, fails=True)
        assert 'Unsupported value: "None"' in wrong
    top = await kubectl('explain', 'foos')
    assert 'Foo CRD for testing.' in top
    assert 'Specification of Foo.' in top
    assert 'When the server created the object.' in await kubectl('explain', 'foos.metadata')
    bars = await kubectl('explain', 'foos.spec.bars')
    assert 'List of Bars and their specs.' in bars
    assert 'Name of Bar.' in bars
    assert 'List of Bazs.' in bars
    assert 'field "bars2" does not exist' in await kubectl('explain', 'foos.spec.bars2', fails=True)


@pytest.mark.parametrize(
    ('schema', 'body', 'explained'),
    [
        pytest.param(
            {'type': 'object', PRESERVE: True}, {'a': {'b': [{'c': 'd'}]}}, '<empty>',
            marks=conformance(
                'CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD without validation schema'
            ),
        ),
        pytest.param(
            {'type': 'object', PRESERVE: True, 'properties': {'spec': {'type': 'object'}}}, {'a': {'b': [{'c': 'd'}]}},
            'KIND:       Foo',
            marks=conformance(
                'CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields at the '
                'schema root'
            ),
        ),
        pytest.param(
            {'type': 'object', 'description': 'Unknown fields below spec.',
             'properties': {'spec': {'type': 'object', PRESERVE: True}}},
            {'spec': {'a': None, 'b': [{'c': 'd'}]}}, 'Unknown fields below spec.',
            marks=conformance(
                'CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields in an '
                'embedded object'
            ),
        ),
    ],
    ids=['without schema', 'at the root', 'in an embedded object'],
)  # fmt: skip
async def test_kubectl_lets_unknown_fields_pass_where_they_are_kept(custom, kubectl, schema, body, explained):
    await custom.declare(crd('any', 'Foo', schema, 'v1'))
    assert await published(custom.api, 'any', 'v1', 'Foo') is not None
    whole = {'apiVersion': 'any.example.com/v1', 'kind': 'Foo', 'metadata': {'name': 'test'}, **body}
    await accepts_anything(kubectl, whole)
    assert explained in await kubectl('explain', 'foos')


@conformance('CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of different groups')
@conformance(
    'CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group but different '
    'versions'
)
@conformance(
    'CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group and version but '
    'different kinds'
)
@pytest.mark.parametrize(
    ('group', 'version'), [('other', 'v1'), ('one', 'v2'), ('one', 'v1')], ids=['groups', 'versions', 'kinds']
)
async def test_definitions_are_published_side_by_side(custom, group, version):
    await custom.declare(crd('one', 'Foo', FOO, 'v1', 'v3'))
    await custom.declare(crd(group, 'Waldo', WALDO, version))
    assert await published(custom.api, 'one', 'v1', 'Foo') == FOO
    assert await published(custom.api, 'one', 'v3', 'Foo') == FOO
    assert await published(custom.api, group, version, 'Waldo') == WALDO


@conformance(
    'CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] updates the published spec when one version gets renamed'
)
async def test_a_renamed_version_is_published_under_its_new_name(custom):
    made = await custom.declare(crd('ver', 'Foo', FOO, 'v2', 'v3'))
    rename = [
        {'op': 'test', 'path': '/spec/versions/1/name', 'value': 'v3'},
        {'op': 'replace', 'path': '/spec/versions/1/name', 'value': 'v4'},
    ]
    patched = await custom.api.patch(f'{CRDS}/{made["metadata"]["name"]}', rename, 'json-patch')
    assert patched.status == 200, patched.text
    assert await published(custom.api, 'ver', 'v4', 'Foo') == FOO
    assert await published(custom.api, 'ver', 'v3', 'Foo') is None
    assert await published(custom.api, 'ver', 'v2', 'Foo') == FOO


@conformance(
    'CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] removes definition from spec when one version gets changed '
    'to not be served'
)
async def test_a_version_no_longer_served_is_no_longer_published(custom):
    made = await custom.declare(crd('ver', 'Foo', FOO, 'v5', 'v6alpha1'))
    assert await published(custom.api, 'ver', 'v6alpha1', 'Foo') == FOO
    made['spec']['versions'][1]['served'] = False
    assert (await custom.api.put(f'{CRDS}/{made["metadata"]["name"]}', made)).status == 200
    assert await published(custom.api, 'ver', 'v6alpha1', 'Foo') is None
    assert await published(custom.api, 'ver', 'v5', 'Foo') == FOO


@conformance('AggregatedDiscovery should support aggregated discovery interface for CRDs')
@conformance('AggregatedDiscovery should support raw aggregated discovery request for CRDs')
@pytest.mark.parametrize('form', ['v2', 'v2beta1'])
async def test_aggregated_discovery_lists_each_version_of_a_definition(custom, form):
    await custom.declare(crd('disc', 'Foo', FOO, 'v1beta1', 'v1', 'v2'))
    accept = f'application/json;g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList'
    reply = await custom.api.get('/apis', headers={'Accept': accept})
    [group] = [g for g in reply.json['items'] if g['metadata']['name'] == 'disc.example.com']
    assert [v['version'] for v in group['versions']] == ['v2', 'v1', 'v1beta1']
    for version in group['versions']:
        [foos] = version['resources']
        assert (foos['resource'], foos['scope'], foos['singularResource']) == ('foos', 'Namespaced', 'foo')
        wanted = {'group': 'disc.example.com', 'version': version['version'], 'kind': 'Foo'}
        assert {k: v for k, v in foos['responseKind'].items() if v} == wanted
        assert {'get', 'list', 'watch', 'create', 'patch', 'deletecollection'} <= set(foos['verbs'])
    await custom.api.delete(f'{CRDS}/foos.disc.example.com')
    async with custom.api.watch(f'{CRDS}?watch=true&resourceVersion=0') as event:
        while (await event())['type'] != 'DELETED':
            continue
    again = await custom.api.get('/apis', headers={'Accept': accept})
    assert 'disc.example.com' not in {g['metadata']['name'] for g in again.json['items']}


# — field validation —

PORT: Obj = {
    'type': 'object',
    'required': ['containerPort', 'protocol'],
    'properties': {
        'containerPort': {'type': 'integer', 'format': 'int32'},
        'name': {'type': 'string'},
        'protocol': {'type': 'string'},
    },
}
PORTS = {'type': 'array', 'items': PORT, 'x-kubernetes-list-type': 'map',
         'x-kubernetes-list-map-keys': ['containerPort', 'protocol']}  # fmt: skip
PATTERN = r'^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'
SPEC: Obj = {'foo': {'type': 'string'}, 'cronSpec': {'type': 'string', 'pattern': PATTERN}, 'ports': PORTS}
MANIFEST = """
apiVersion: stable.example.com/v1
kind: CronTab
metadata:
  name: mytest
  finalizers:
  - test/finalizer
spec:
  foo: foo1
  cronSpec: "* * * * */5"
  ports:
  - name: x
    containerPort: 80
    protocol: TCP"""


async def applied(custom: Any, text: str, validation: str = 'Strict') -> Any:
    path = f'{custom.path}/mytest?fieldManager=field_validation_mgr&fieldValidation={validation}'
    return await custom.api.patch(path, text.encode(), 'apply-patch')


@conformance('FieldValidation should create/apply a valid CR for CRD with validation schema')
async def test_a_valid_custom_resource_is_applied(custom, define):
    await custom.declare(define({'type': 'object', 'properties': SPEC}))
    made = await applied(custom, MANIFEST)
    assert (made.status, made.json['spec']['foo']) == (201, 'foo1')


@conformance('FieldValidation should create/apply a CR with unknown fields for CRD with no validation schema')
async def test_unknown_fields_are_applied_where_no_schema_forbids_them(custom, define):
    await custom.declare(define(root={'type': 'object', PRESERVE: True}))
    made = await applied(custom, MANIFEST.replace('foo: foo1', 'unknown: uk1'))
    assert (made.status, made.json['spec']['unknown']) == (201, 'uk1')


@conformance('FieldValidation should create/apply an invalid CR with extra properties for CRD with validation schema')
@pytest.mark.parametrize('validation', ['Strict', 'Ignore'])
async def test_an_apply_names_what_the_schema_does_not_declare(custom, define, validation):
    await custom.declare(define({'type': 'object', 'properties': SPEC}))
    refused = await applied(custom, MANIFEST.replace('\nspec:', '\nunknownField: unknown\nspec:'), validation)
    assert refused.status == 400
    assert refused.json['message'] == (
        'failed to create typed patch object (/mytest; stable.example.com/v1, Kind=CronTab): '
        '.unknownField: field not declared in schema'
    )
    created = await custom.api.post(
        f'{custom.path}?fieldValidation=Strict', orjson.dumps(custom.obj('x', {'extra': 1}))
    )
    assert 'strict decoding error: unknown field "spec.extra"' in created.json['message']


@conformance('FieldValidation should detect unknown metadata fields in both the root and embedded object of a CR')
async def test_unknown_metadata_is_named_at_the_root_and_in_embedded_objects(custom, define):
    template = {'type': 'object', 'x-kubernetes-embedded-resource': True, 'properties': {
        'metadata': {'type': 'object', 'properties': {'name': {'type': 'string'}}}, 'spec': {'type': 'object'},
    }}  # fmt: skip
    await custom.declare(define({'type': 'object', PRESERVE: True, 'properties': {**SPEC, 'template': template}}))
    inner = '\n  template:\n    apiversion: foo/v1\n    kind: Sub\n    metadata: {unknownSubMeta: unknown, name: sub}'
    text = MANIFEST.replace('\n  foo: foo1', inner).replace('  name: mytest', '  name: mytest\n  unknownMeta: unknown')
    refused = await applied(custom, text)
    assert refused.status == 400
    assert '.metadata.unknownMeta: field not declared in schema' in refused.json['message']
    assert '.spec.template.metadata.unknownSubMeta: field not declared in schema' in refused.json['message']


@conformance('FieldValidation should detect duplicates in a CR when preserving unknown fields')
async def test_a_repeated_key_is_told_with_its_line(custom, define):
    await custom.declare(define({'type': 'object', PRESERVE: True, 'properties': SPEC}))
    text = MANIFEST.replace('  foo: foo1', '  unknown: uk1\n  foo: foo1\n  foo: foo2')
    refused = await applied(custom, text)
    assert refused.status == 400
    assert 'line 11: key "foo" already set in map' in refused.json['message']
    created = await custom.api.post(
        f'{custom.path}?fieldValidation=Strict', text.encode(), content_type='application/yaml'
    )
    assert created.status == 400
    assert 'line 11: key "foo" already set in map' in created.json['message']
    warned = await applied(custom, text, 'Warn')
    assert warned.status == 201
    assert 'line 11: key \\"foo\\" already set in map' in warned.headers['Warning']
