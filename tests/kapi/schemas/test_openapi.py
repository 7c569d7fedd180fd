"""What kubectl reads in the component schemas."""

from kapi.kinds import GOVERNING, KINDS, VIRTUAL
from kapi.schemas import component_names, components, schema_for
from kapi.schemas.openapi import closure, descriptions


def test_components_are_closed_under_reference():
    found = components('apps', 'v1')

    def references(value):
        if isinstance(value, dict):
            if isinstance(value.get('$ref'), str):
                yield value['$ref'].removeprefix('#/components/schemas/')
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    assert set(references(found)) <= set(found)


def test_a_kind_and_its_list_say_their_gvk():
    found = components('', 'v1', ['Pod'])
    assert found['io.k8s.api.core.v1.Pod']['x-kubernetes-group-version-kind'] == [
        {'group': '', 'version': 'v1', 'kind': 'Pod'}
    ]
    assert found['io.k8s.api.core.v1.PodList']['x-kubernetes-group-version-kind'][0]['kind'] == 'PodList'
    assert 'io.k8s.api.core.v1.Service' not in found


def test_merge_rules_are_published():
    fields = components('apps', 'v1')['io.k8s.api.core.v1.PodSpec']['properties']
    containers = fields['containers']
    assert containers['x-kubernetes-patch-merge-key'] == 'name'
    assert containers['x-kubernetes-patch-strategy'] == 'merge'
    assert containers['x-kubernetes-list-map-keys'] == ['name']
    assert fields['volumes']['x-kubernetes-patch-strategy'] == 'merge,retainKeys'


def test_every_kind_of_a_group_is_named():
    assert component_names('apps', 'v1')['Deployment'] == 'io.k8s.api.apps.v1.Deployment'


def test_every_description_is_of_something_and_the_main_fields_have_one():
    definitions = {}
    for kind in (*KINDS, *GOVERNING, *VIRTUAL):
        for name, schema in components(kind.resource.group, kind.resource.version).items():
            definitions.setdefault(name.rpartition('.')[2], {}).update(schema.get('properties', {}))
    for name, fields in descriptions().items():
        known = definitions[name] if name != '*' else {f for d in definitions.values() for f in d}
        assert [f for f in fields if f and f not in known] == [], name
    for name in ('PodSpec', 'ObjectMeta', 'ServiceSpec', 'DeploymentSpec'):
        assert [f for f, schema in definitions[name].items() if 'description' not in schema] == [], name
    pod = components('', 'v1', ['Pod'])['io.k8s.api.core.v1.Pod']
    assert pod['description'].startswith('A group of containers')
    assert pod['properties']['spec']['allOf'] == [{'$ref': '#/components/schemas/io.k8s.api.core.v1.PodSpec'}]


def test_something_is_said_of_every_field_of_every_kind():
    definitions = {}
    for kind in (*KINDS, *GOVERNING, *VIRTUAL):
        definitions |= closure(schema_for(kind.resource).root.name)
    fields = [(name, f, shape) for name, d in definitions.items() for f, shape in d['properties'].items()]
    assert len(fields) > 1900
    assert not [f'{name}.{field}' for name, field, shape in fields if not shape.get('description')]
