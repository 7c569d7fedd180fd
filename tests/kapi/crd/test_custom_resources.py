"""Custom resources through real sockets; names follow the conformance tests they stand for."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kapi.storage.urls import open_storage

CRDS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
conformance = pytest.mark.conformance
STR, INT = {'type': 'string'}, {'type': 'integer'}


def fields(**properties: Any) -> dict[str, Any]:
    return {'type': 'object', 'properties': properties}


def terminating(crd: dict[str, Any]) -> bool:
    return any(c['type'] == 'Terminating' and c['status'] == 'True' for c in crd['status'].get('conditions') or ())


@conformance(
    'CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition '
    'creating/deleting custom resource definition objects works'
)
async def test_creating_and_deleting_custom_resource_definition_objects_works(custom: Any, define: Any) -> None:
    crd = await custom.declare(define())
    kinds = {c['type']: (c['status'], c['reason']) for c in crd['status']['conditions']}
    assert kinds == {'NamesAccepted': ('True', 'NoConflicts'), 'Established': ('True', 'InitialNamesAccepted')}
    assert crd['status']['storedVersions'] == ['v1']
    assert crd['status']['acceptedNames']['plural'] == 'crontabs'
    assert (await custom.create({'a': 1})).status == 201
    gone = await custom.api.delete(f'{CRDS}/crontabs.stable.example.com')
    assert gone.status == 200
    assert gone.json['metadata']['finalizers'] == ['customresourcecleanup.apiextensions.k8s.io']
    async with custom.api.watch(f'{CRDS}?watch=true&resourceVersion=0') as event:
        while (await event())['type'] != 'DELETED':
            continue
    assert (await custom.api.get(custom.path)).status == 404
    await custom.declare(define())
    assert (await custom.api.get(custom.path)).json['items'] == []


async def test_a_custom_resource_must_say_what_it_is(custom: Any, define: Any) -> None:
    await custom.declare(define())
    body = {'metadata': {'name': 'x'}}
    nameless = await custom.api.post(custom.path, body)
    assert nameless.status == 400
    told = "CronTab in version \"v1\" cannot be handled as a CronTab: Object 'Kind' is missing in '%s'"
    assert nameless.json['message'] == told % orjson.dumps(body).decode()
    versionless = await custom.api.post(custom.path, {'kind': 'CronTab', **body})
    expected = 'the API version in the data () does not match the expected API version (stable.example.com/v1)'
    assert (versionless.status, versionless.json['message']) == (400, expected)
    assert (await custom.create()).status == 201
    assert (await custom.api.put(f'{custom.path}/x', body)).status == 400
    assert (await custom.api.patch(f'{custom.path}/x', {'spec': {'a': 1}})).status == 200


@conformance(
    'CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition '
    'listing custom resource definition objects works'
)
async def test_listing_custom_resource_definition_objects_works(custom: Any, define: Any) -> None:
    await custom.declare(define())
    listed = await custom.api.get(CRDS)
    assert [i['metadata']['name'] for i in listed.json['items']] == ['crontabs.stable.example.com']
    await custom.api.delete(CRDS)
    async with custom.api.watch(f'{CRDS}?watch=true&resourceVersion=0') as event:
        while (await event())['type'] != 'DELETED':
            continue


@conformance(
    'CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition '
    'getting/updating/patching custom resource definition status sub-resource works'
)
async def test_getting_updating_patching_definition_status_sub_resource_works(custom: Any, define: Any) -> None:
    await custom.declare(define())
    path = f'{CRDS}/crontabs.stable.example.com/status'
    found = (await custom.api.get(path)).json
    found['status']['conditions'].append({'type': 'StatusUpdate', 'status': 'True', 'reason': 'E2E', 'message': 'x',
                                          'lastTransitionTime': '2026-01-01T00:00:00Z'})  # fmt: skip
    assert (await custom.api.put(path, found)).status == 200
    patch = {'status': {'conditions': [{'type': 'StatusPatched', 'status': 'True', 'reason': 'E', 'message': 'm',
                                        'lastTransitionTime': '2026-01-01T00:00:00Z'}]}}  # fmt: skip
    assert (await custom.api.patch(path, patch)).status == 200


@conformance(
    'CustomResourceDefinition resources [Privileged:ClusterAdmin] custom resource defaulting for '
    'requests and from storage works'
)
async def test_custom_resource_defaulting_for_requests_and_from_storage_works(custom: Any, define: Any) -> None:
    crd = await custom.declare(define(fields(a={'type': 'string', 'default': 'A'}, b=STR)))
    made = (await custom.create({}, 'one')).json
    assert made['spec'] == {'a': 'A'}
    crd['spec']['versions'][0]['schema']['openAPIV3Schema']['properties']['spec']['properties']['b']['default'] = 'B'
    assert (await custom.api.put(f'{CRDS}/crontabs.stable.example.com', crd)).status == 200
    assert (await custom.api.get(f'{custom.path}/one')).json['spec'] == {'a': 'A', 'b': 'B'}
    assert (await custom.api.get(custom.path)).json['items'][0]['spec'] == {'a': 'A', 'b': 'B'}
    async with custom.api.watch(f'{custom.path}?watch=true&resourceVersion=0') as event:
        assert (await event())['object']['spec'] == {'a': 'A', 'b': 'B'}


@conformance(
    'CustomResourceDefinition resources [Privileged:ClusterAdmin] should include custom resource '
    'definition resources in discovery documents'
)
async def test_should_include_custom_resource_definition_resources_in_discovery_documents(
    custom: Any, define: Any
) -> None:
    groups = (await custom.api.get('/apis')).json['groups']
    assert 'apiextensions.k8s.io' in {g['name'] for g in groups}
    resources = (await custom.api.get('/apis/apiextensions.k8s.io/v1')).json['resources']
    assert 'customresourcedefinitions' in {r['name'] for r in resources}
    await custom.declare(define(subresources={'status': {}}))
    listed = (await custom.api.get('/apis/stable.example.com/v1')).json['resources']
    assert [(r['name'], r['kind'], r.get('shortNames')) for r in listed] == [
        ('crontabs', 'CronTab', ['ct']), ('crontabs/status', 'CronTab', None),
    ]  # fmt: skip
    accept = {'Accept': 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList'}
    body = (await custom.api.get('/apis', headers=accept)).text
    assert '"stable.example.com"' in body


@conformance(
    'CustomResourceDefinition Watch [Privileged:ClusterAdmin] CustomResourceDefinition Watch watch '
    'on custom resource definition objects'
)
async def test_custom_resource_definition_watch_on_custom_resource_definition_objects(custom: Any, define: Any) -> None:
    await custom.declare(define())
    async with custom.api.watch(f'{custom.path}?watch=true') as event:
        await custom.create({'a': 1})
        await custom.api.patch(f'{custom.path}/x', {'spec': {'a': 2}})
        await custom.api.delete(f'{custom.path}/x')
        seen = [await event() for _ in range(3)]
    assert [e['type'] for e in seen] == ['ADDED', 'MODIFIED', 'DELETED']
    assert [e['object']['spec']['a'] for e in seen] == [1, 2, 2]


@conformance(
    'CustomResourceFieldSelectors [Privileged:ClusterAdmin] CustomResourceFieldSelectors MUST list '
    'and watch custom resources matching the field selector'
)
async def test_must_list_and_watch_custom_resources_matching_the_field_selector(custom: Any, define: Any) -> None:
    schema = fields(host=STR, port=INT)
    selectable = [{'jsonPath': '.spec.host'}, {'jsonPath': '.spec.port'}]
    await custom.declare(define(schema, selectableFields=selectable))
    await custom.create({'host': 'host1', 'port': 80}, 'one')
    await custom.create({'host': 'host1', 'port': 8080}, 'two')
    await custom.create({'host': 'host2', 'port': 80}, 'three')
    listed = await custom.api.get(f'{custom.path}?fieldSelector=spec.host=host1,spec.port=80')
    assert [i['metadata']['name'] for i in listed.json['items']] == ['one']
    async with custom.api.watch(f'{custom.path}?watch=true&resourceVersion=0&fieldSelector=spec.host=host2') as event:
        assert (await event())['object']['metadata']['name'] == 'three'
        await custom.api.patch(f'{custom.path}/three', {'spec': {'host': 'host1'}})
        assert (await event())['type'] == 'DELETED'
    refused = await custom.api.get(f'{custom.path}?fieldSelector=spec.other=x')
    assert (refused.status, refused.json['message']) == (400, 'field label not supported: spec.other')


async def test_unknown_fields_are_pruned_and_named_as_field_validation_demands(custom: Any, define: Any) -> None:
    await custom.declare(define(fields(foo=STR)))
    made = await custom.create({'foo': 'f', 'bar': 1, 'deep': {'x': 1}})
    assert made.json['spec'] == {'foo': 'f'}
    named = [f'299 - "unknown field \\"spec.{name}\\""' for name in ('bar', 'deep')]
    assert made.headers.getall('Warning') == named
    strict = await custom.api.post(f'{custom.path}?fieldValidation=Strict', custom.obj('y', {'bar': 1}))
    assert strict.status == 400
    assert 'strict decoding error: unknown field "spec.bar"' in strict.json['message']
    head = b'{"apiVersion":"stable.example.com/v1","kind":"CronTab","metadata":{"name":"z","nope":1},'
    body = head + b'"spec":{"foo":"a","foo":"b"}}'
    twice = await custom.api.post(f'{custom.path}?fieldValidation=Strict', body)
    assert 'unknown field "metadata.nope", duplicate field "spec.foo"' in twice.json['message']


async def test_should_detect_duplicates_in_a_cr_when_preserving_unknown_fields(custom: Any, define: Any) -> None:
    await custom.declare(define())
    body = b'{"apiVersion":"stable.example.com/v1","kind":"CronTab","metadata":{"name":"z"},"spec":{"u":{"a":1,"a":2}}}'
    found = await custom.api.post(f'{custom.path}?fieldValidation=Strict', body)
    assert 'strict decoding error: duplicate field "spec.u.a"' in found.json['message']


async def test_should_detect_unknown_metadata_fields_in_both_the_root_and_embedded_object(
    custom: Any, define: Any
) -> None:
    template = {'type': 'object', 'x-kubernetes-embedded-resource': True, 'properties': {'spec': fields(foo=STR)}}
    await custom.declare(define(fields(template=template)))
    inner = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'n', 'unknownSubMeta': 1}, 'spec': {'foo': 'b'}}
    body = custom.obj('x', {'template': inner})
    body['metadata']['unknownMeta'] = 1
    found = await custom.api.post(f'{custom.path}?fieldValidation=Strict', body)
    assert 'unknown field "metadata.unknownMeta"' in found.json['message']
    assert 'unknown field "spec.template.metadata.unknownSubMeta"' in found.json['message']
    kept = (await custom.api.post(custom.path, body)).json['spec']['template']
    assert kept == {**inner, 'metadata': {'name': 'n'}}


async def test_values_are_refused_in_upstreams_words(custom: Any, define: Any) -> None:
    schema = fields(
        size={'type': 'integer', 'minimum': 1, 'maximum': 5}, color={'type': 'string', 'enum': ['red', 'blue']},
        name={'type': 'string', 'pattern': '^a+$', 'maxLength': 3},
        tags={'type': 'array', 'items': STR, 'x-kubernetes-list-type': 'set'},
        when={'type': 'string', 'format': 'date-time'},
    )  # fmt: skip
    await custom.declare(define({**schema, 'required': ['size']}))
    spec = {'size': 9, 'color': 'green', 'name': 'bbbb', 'tags': ['x', 'x'], 'when': 'now'}
    refused = await custom.create(spec)
    assert refused.status == 422
    causes = {(c['field'], c['reason'], c['message']) for c in refused.json['details']['causes']}
    assert causes == {
        ('spec.size', 'FieldValueInvalid', 'Invalid value: 9: spec.size in body should be less than or equal to 5'),
        ('spec.color', 'FieldValueNotSupported', 'Unsupported value: "green": supported values: "blue", "red"'),
        ('spec.name', 'FieldValueTooLong', 'Too long: may not be more than 3 bytes'),
        ('spec.name', 'FieldValueInvalid', 'Invalid value: "bbbb": spec.name in body should match \'^a+$\''),
        ('spec.tags[1]', 'FieldValueDuplicate', 'Duplicate value: "x"'),
        ('spec.when', 'FieldValueInvalid', 'Invalid value: "now": spec.when in body must be of type date-time: "now"'),
    }
    wrong = (await custom.create({'size': 'big'})).json
    assert wrong['message'] == (
        'CronTab.stable.example.com "x" is invalid: spec.size: Invalid value: "string": '
        'spec.size in body must be of type integer: "string"'
    )
    missing = (await custom.create({})).json['details']['causes']
    assert missing == [{'reason': 'FieldValueRequired', 'message': 'Required value', 'field': 'spec.size'}]


async def test_a_put_needs_the_version_and_generation_counts_the_spec(custom: Any, define: Any) -> None:
    await custom.declare(define(subresources={'status': {}}))
    made = (await custom.create({'a': 1}, status={'s': 1})).json
    assert 'status' not in made
    assert made['metadata']['generation'] == 1
    blind = await custom.api.put(f'{custom.path}/x', custom.obj('x', {'a': 2}))
    assert blind.status == 422
    assert 'metadata.resourceVersion: Invalid value: 0x0: must be specified for an update' in blind.json['message']
    made['spec'] = {'a': 2}
    changed = (await custom.api.put(f'{custom.path}/x', made)).json
    assert changed['metadata']['generation'] == 2
    status = await custom.api.patch(f'{custom.path}/x/status', {'status': {'s': 2}, 'spec': {'a': 9}})
    assert (status.status, status.json['spec'], status.json['metadata']['generation']) == (200, {'a': 2}, 2)


async def test_a_strategic_merge_patch_is_refused_and_apply_merges_keyed_lists(custom: Any, define: Any) -> None:
    ports = {'type': 'array', 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['name'],
             'items': {**fields(name=STR, port=INT), 'required': ['name']}}  # fmt: skip
    await custom.declare(define(fields(ports=ports)))
    one = custom.obj('x', {'ports': [{'name': 'a', 'port': 1}]})
    two = custom.obj('x', {'ports': [{'name': 'b', 'port': 2}]})
    assert (await custom.api.patch(f'{custom.path}/x?fieldManager=one', one, 'apply-patch')).status == 201
    both = await custom.api.patch(f'{custom.path}/x?fieldManager=two', two, 'apply-patch')
    assert both.json['spec']['ports'] == [{'name': 'a', 'port': 1}, {'name': 'b', 'port': 2}]
    assert (await custom.api.patch(f'{custom.path}/x', {}, 'strategic-merge-patch')).status == 415
    twice = {'spec': {'ports': [{'name': 'a'}, {'name': 'a'}]}}
    refused = await custom.api.patch(f'{custom.path}/x', twice)
    assert (refused.status, refused.json['details']['causes'][0]['message']) == (422, 'Duplicate value: {"name":"a"}')


async def test_columns_scale_and_warnings_of_a_deprecated_version(custom: Any, define: Any) -> None:
    path = '.status.conditions[?(@.type=="Ready")].status'
    columns = [{'name': 'Replicas', 'type': 'integer', 'jsonPath': '.spec.replicas'},
               {'name': 'Ready', 'type': 'string', 'jsonPath': path}]  # fmt: skip
    scale = {'specReplicasPath': '.spec.replicas', 'statusReplicasPath': '.status.replicas',
             'labelSelectorPath': '.status.selector'}  # fmt: skip
    root = fields(spec=fields(replicas=INT), status={'type': 'object', 'x-kubernetes-preserve-unknown-fields': True})
    await custom.declare(define(root=root, additionalPrinterColumns=columns, deprecated=True,
                                subresources={'status': {}, 'scale': scale}))  # fmt: skip
    made = await custom.create({'replicas': 3})
    assert made.headers.getall('Warning') == ['299 - "stable.example.com/v1 CronTab is deprecated"']
    status = {'status': {'replicas': 2, 'selector': 'app=x', 'conditions': [{'type': 'Ready', 'status': 'True'}]}}
    await custom.api.patch(f'{custom.path}/x/status', status)
    table = (await custom.api.get(custom.path, headers={'Accept': 'application/json;as=Table;g=meta.k8s.io;v=v1'})).json
    assert [c['name'] for c in table['columnDefinitions']] == ['Name', 'Replicas', 'Ready']
    assert table['rows'][0]['cells'] == ['x', 3, 'True']
    scaled = await custom.api.patch(f'{custom.path}/x/scale', {'spec': {'replicas': 5}})
    assert (scaled.json['spec'], scaled.json['status']) == ({'replicas': 5}, {'replicas': 2, 'selector': 'app=x'})
    assert (await custom.api.get(f'{custom.path}/x')).json['spec'] == {'replicas': 5}


async def test_a_cluster_scoped_kind_has_no_namespace(custom: Any, define: Any) -> None:
    crd = define()
    crd['spec']['scope'] = 'Cluster'
    await custom.declare(crd)
    path = '/apis/stable.example.com/v1/crontabs'
    made = await custom.api.post(path, custom.obj('x', {}))
    assert made.status == 201
    assert 'namespace' not in made.json['metadata']
    assert (await custom.api.get(f'{path}/x')).status == 200


async def test_names_that_are_taken_are_not_accepted(custom: Any, define: Any) -> None:
    await custom.declare(define())
    other = define()
    other['metadata']['name'] = 'tabs.stable.example.com'
    other['spec']['names'] = {'plural': 'tabs', 'kind': 'CronTab', 'shortNames': ['ct']}
    await custom.api.post(CRDS, other)
    seen = await custom.until('tabs.stable.example.com', lambda c: (c['status'].get('conditions') or None) is not None)
    conditions = {c['type']: (c['status'], c['reason'], c['message']) for c in seen['status']['conditions']}
    assert conditions['NamesAccepted'][0] == 'False'
    assert conditions['Established'] == ('False', 'NotAccepted', 'not all names are accepted')
    assert (await custom.api.get('/apis/stable.example.com/v1/tabs')).status == 404


async def test_a_definition_that_goes_waits_for_custom_resources_with_finalizers(custom: Any, define: Any) -> None:
    await custom.declare(define())
    body = custom.obj('x', {})
    body['metadata']['finalizers'] = ['example.com/wait']
    assert (await custom.api.post(custom.path, body)).status == 201
    await custom.api.delete(f'{CRDS}/crontabs.stable.example.com')
    await custom.until('crontabs.stable.example.com', terminating)
    assert (await custom.create({}, 'late')).status == 405
    async with custom.api.watch(f'{CRDS}?watch=true&resourceVersion=0') as event:
        await custom.api.patch(f'{custom.path}/x', {'metadata': {'finalizers': None}})
        while (await event())['type'] != 'DELETED':
            continue


async def test_openapi_follows_the_definitions(custom: Any, define: Any) -> None:
    crd = await custom.declare(define(fields(foo={'type': 'string', 'description': 'The foo.'})))
    document = (await custom.api.get('/openapi/v3/apis/stable.example.com/v1')).json
    shape = document['components']['schemas']['com.example.stable.v1.CronTab']
    assert shape['properties']['spec']['properties']['foo']['description'] == 'The foo.'
    assert shape['x-kubernetes-group-version-kind'] == [
        {'group': 'stable.example.com', 'version': 'v1', 'kind': 'CronTab'}
    ]
    crd['spec']['versions'].append({**crd['spec']['versions'][0], 'name': 'v2', 'storage': False})
    assert (await custom.api.put(f'{CRDS}/crontabs.stable.example.com', crd)).status == 200
    index = (await custom.api.get('/openapi/v3')).json['paths']
    assert 'apis/stable.example.com/v2' in index
    crd = (await custom.api.get(f'{CRDS}/crontabs.stable.example.com')).json
    crd['spec']['versions'][1]['served'] = False
    assert (await custom.api.put(f'{CRDS}/crontabs.stable.example.com', crd)).status == 200
    index = (await custom.api.get('/openapi/v3')).json['paths']
    assert 'apis/stable.example.com/v1' in index
    assert 'apis/stable.example.com/v2' not in index


async def test_custom_resources_outlive_the_api_server(serve: Any, crd_tools: Any, env: Any) -> None:
    storage = open_storage('memory://', env)
    async with serve(storage) as first, crd_tools.acting(first.server):
        custom = crd_tools.Custom(await first.user('admin', 'system:masters'))
        await custom.declare(crd_tools.definition())
        await custom.create({'a': 1})
    async with serve(storage) as second:
        again = crd_tools.Custom(await second.user('admin', 'system:masters'))
        assert (await again.api.get(f'{again.path}/x')).json['spec'] == {'a': 1}


async def test_kopfs_example_definition_works(custom: Any) -> None:
    root = {'type': 'object', 'properties': {
        'spec': {'type': 'object', 'x-kubernetes-preserve-unknown-fields': True},
        'status': {'type': 'object', 'x-kubernetes-preserve-unknown-fields': True},
    }}  # fmt: skip
    columns = [{'name': 'Duration', 'type': 'string', 'priority': 0, 'jsonPath': '.spec.duration'},
               {'name': 'Children', 'type': 'string', 'jsonPath': '.status.create_fn.children'}]  # fmt: skip
    version = {'name': 'v1', 'served': True, 'storage': True, 'schema': {'openAPIV3Schema': root},
               'additionalPrinterColumns': columns, 'subresources': {'status': {}}}  # fmt: skip
    names = {
        'kind': 'KopfExample',
        'plural': 'kopfexamples',
        'singular': 'kopfexample',
        'shortNames': ['kopfexes', 'kex'],
    }
    spec = {'scope': 'Namespaced', 'group': 'kopf.dev', 'names': names, 'versions': [version]}
    await custom.declare({'apiVersion': 'apiextensions.k8s.io/v1', 'kind': 'CustomResourceDefinition',
                          'metadata': {'name': 'kopfexamples.kopf.dev'}, 'spec': spec})  # fmt: skip
    path = '/apis/kopf.dev/v1/namespaces/default/kopfexamples'
    body = {'apiVersion': 'kopf.dev/v1', 'kind': 'KopfExample', 'metadata': {'name': 'one'}, 'spec': {'duration': '1m'}}
    assert (await custom.api.post(path, body)).status == 201
    done = await custom.api.patch(f'{path}/one/status', {'status': {'create_fn': {'children': ['a']}}})
    assert done.json['status'] == {'create_fn': {'children': ['a']}}
    touched = await custom.api.patch(
        f'{path}/one', {'metadata': {'finalizers': ['kopf.zalando.org/KopfFinalizerMarker']}}
    )
    assert touched.status == 200


async def test_a_schema_of_certificate_size_is_taken_and_published(custom: Any, define: Any) -> None:
    def deep(levels: int) -> dict[str, Any]:
        if not levels:
            return {'type': 'string', 'description': 'A leaf with some words about it. ' * 4, 'maxLength': 253}
        item = {**fields(name=STR, weight={'type': 'integer', 'default': 1}), 'required': ['name']}
        keyed = {'type': 'array', 'items': item, 'x-kubernetes-list-type': 'map'}
        keyed['x-kubernetes-list-map-keys'] = ['name']
        return fields(solvers=keyed, **{f'f{i}': deep(levels - 1) for i in range(9)})

    crd = define(deep(3))
    assert len(orjson.dumps(crd)) > 150_000
    await custom.declare(crd)
    made = await custom.create({'f0': {'f1': {'f2': 'x'}, 'solvers': [{'name': 'a'}]}})
    assert made.json['spec']['f0']['solvers'] == [{'name': 'a', 'weight': 1}]
    assert (await custom.create({'f0': {'f1': {'f2': 5}}}, 'bad')).status == 422
    document = (await custom.api.get('/openapi/v3/apis/stable.example.com/v1')).json
    assert 'com.example.stable.v1.CronTab' in document['components']['schemas']
