"""Field ownership: apply, conflicts, taking over, letting go, and the record of plain updates."""

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.meta import fields, fieldsets
from kcore.meta.fields import Manager, apply, conflict_message, record_update
from kcore.meta.schema import Node

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)
_string, _int = Node('string'), Node('int32')
_port = Node('object', 'Port', {'port': _int, 'protocol': _string, 'name': _string})
_container = Node(
    'object',
    'Container',
    {
        'name': _string,
        'image': _string,
        'args': Node('array', items=_string),
        'ports': Node('array', items=_port, list_type='map', keys=('port', 'protocol')),
    },
)
_meta = Node(
    'object',
    'Meta',
    {
        'name': _string,
        'labels': Node('map', items=_string),
        'annotations': Node('map', items=_string),
        'finalizers': Node('array', items=_string, list_type='set'),
        'managedFields': Node('array', items=Node('any')),
    },
)
_spec = Node(
    'object',
    'Spec',
    {
        'replicas': _int,
        'selector': Node('object', 'Sel', {'matchLabels': Node('map', items=_string)}, atomic=True),
        'containers': Node('array', items=_container, list_type='map', keys=('name',)),
    },
)
SCHEMA = Node('object', 'Thing', {'metadata': _meta, 'spec': _spec, 'status': Node('object', 'St', {'n': _int})})
A, B = Manager('a', 'Apply', 'v1'), Manager('b', 'Apply', 'v1')
U = Manager('editor', 'Update', 'v1')


def thing(spec=None, **metadata):
    return {'metadata': {'name': 't', **metadata}, **({'spec': spec} if spec is not None else {})}


def applied(live, config, who=A, now=NOW, **options):
    result = apply(live, config, SCHEMA, who, now, **options)
    assert not result.conflicts, result.conflicts
    return result.merged


def owner_paths(obj, name):
    entry = next(e for e in obj['metadata']['managedFields'] if e['manager'] == name)
    return {fieldsets.show(p) for p in fieldsets.decode(entry['fieldsV1'])}


def test_the_first_apply_creates_and_owns():
    made = applied(None, thing({'replicas': 1, 'containers': [{'name': 'c', 'image': 'x'}]}, labels={'l': '1'}))
    assert made['spec']['replicas'] == 1
    assert owner_paths(made, 'a') == {
        '.metadata.labels.l',
        '.spec.replicas',
        '.spec.containers[name="c"]',
        '.spec.containers[name="c"].name',
        '.spec.containers[name="c"].image',
    }


def test_managed_fields_have_upstreams_form():
    made = applied(None, thing({'containers': [{'name': 'c', 'image': 'x'}]}, finalizers=['f']))
    assert made['metadata']['managedFields'] == [
        {
            'manager': 'a',
            'operation': 'Apply',
            'apiVersion': 'v1',
            'time': '2026-01-01T00:00:00Z',
            'fieldsType': 'FieldsV1',
            'fieldsV1': {
                'f:metadata': {'f:finalizers': {'v:"f"': {}}},
                'f:spec': {'f:containers': {'k:{"name":"c"}': {'.': {}, 'f:image': {}, 'f:name': {}}}},
            },
        }
    ]


def test_changing_anothers_field_is_a_conflict_and_agreeing_is_not():
    live = applied(None, thing({'replicas': 1}))
    same = applied(live, thing({'replicas': 1}), B)
    assert owner_paths(same, 'a') == owner_paths(same, 'b') == {'.spec.replicas'}
    result = apply(live, thing({'replicas': 2}), SCHEMA, B, LATER)
    assert conflict_message(result.conflicts) == 'Apply failed with 1 conflict: conflict with "a": .spec.replicas'
    assert result.conflicts[0].cause() == {
        'reason': 'FieldManagerConflict',
        'message': 'conflict with "a"',
        'field': '.spec.replicas',
    }


def test_force_takes_the_field_over():
    live = applied(None, thing({'replicas': 1}, labels={'k': 'v'}))
    forced = applied(live, thing({'replicas': 2}), B, force=True)
    assert forced['spec']['replicas'] == 2
    assert owner_paths(forced, 'a') == {'.metadata.labels.k'}
    assert owner_paths(forced, 'b') == {'.spec.replicas'}


def test_a_field_left_out_goes_away_unless_another_owns_it():
    live = applied(None, thing({'replicas': 1}, labels={'x': '1', 'y': '2'}))
    live = applied(live, thing(labels={'y': '2'}), B)
    after = applied(live, thing(), A, LATER)
    assert after['metadata']['labels'] == {'y': '2'}
    assert 'replicas' not in after.get('spec', {})


def test_an_item_left_out_goes_with_its_defaulted_fields():
    live = applied(None, thing({'containers': [{'name': 'c', 'image': 'x'}, {'name': 'd'}]}))
    live['spec']['containers'][0]['args'] = ['defaulted']
    after = applied(live, thing({'containers': [{'name': 'd'}]}))
    assert after['spec']['containers'] == [{'name': 'd'}]


def test_an_item_in_which_another_owns_a_field_stays_with_its_key():
    live = applied(None, thing({'containers': [{'name': 'c', 'image': 'x', 'args': ['a']}]}))
    live = applied(live, thing({'containers': [{'name': 'c', 'image': 'y'}]}), B, force=True)
    after = applied(live, thing(), A)
    assert after['spec']['containers'] == [{'name': 'c', 'image': 'y'}]


def test_a_port_without_protocol_is_keyed_as_tcp():
    live = applied(None, thing({'containers': [{'name': 'c', 'ports': [{'port': 80}]}]}))
    live['spec']['containers'][0]['ports'][0]['protocol'] = 'TCP'
    after = applied(live, thing({'containers': [{'name': 'c', 'ports': [{'port': 80, 'name': 'web'}]}]}))
    assert after['spec']['containers'][0]['ports'] == [{'port': 80, 'protocol': 'TCP', 'name': 'web'}]


def test_an_atomic_object_is_replaced_as_a_whole():
    live = applied(None, thing({'selector': {'matchLabels': {'a': '1'}}}))
    assert owner_paths(live, 'a') == {'.spec.selector'}
    after = applied(live, thing({'selector': {'matchLabels': {'b': '1'}}}))
    assert after['spec']['selector'] == {'matchLabels': {'b': '1'}}


def test_applying_the_same_again_changes_nothing_not_even_the_time():
    config = thing({'replicas': 1, 'containers': [{'name': 'c', 'ports': [{'port': 1, 'protocol': 'TCP'}]}]})
    live = applied(None, config)
    assert applied(live, config, A, LATER) == live


def test_duplicate_items_are_refused():
    with pytest.raises(fields.FieldsError, match='duplicate entries'):
        apply(None, thing({'containers': [{'name': 'c'}, {'name': 'c'}]}), SCHEMA, A, NOW)


def test_an_update_owns_what_it_changed_and_takes_it_from_others():
    live = applied(None, thing({'replicas': 1}, labels={'k': 'v'}))
    new = thing({'replicas': 3}, labels={'k': 'v', 'new': '1'})
    new['metadata']['managedFields'] = record_update(live, new, SCHEMA, U, LATER)
    assert owner_paths(new, 'editor') == {'.spec.replicas', '.metadata.labels.new'}
    assert owner_paths(new, 'a') == {'.metadata.labels.k'}
    result = apply(new, thing({'replicas': 1}, labels={'k': 'v'}), SCHEMA, A, LATER)
    assert conflict_message(result.conflicts) == (
        'Apply failed with 1 conflict: conflict with "editor" using v1 at 2026-01-02T00:00:00Z: .spec.replicas'
    )


def test_status_and_spec_are_owned_through_their_own_endpoints():
    live = thing({'replicas': 1})
    new = {**thing({'replicas': 2}), 'status': {'n': 1}}
    main = record_update(live, new, SCHEMA, U, NOW)
    assert main[0]['fieldsV1'] == {'f:spec': {'f:replicas': {}}}
    status = record_update(live, new, SCHEMA, Manager('kubelet', 'Update', 'v1', 'status'), NOW)
    assert status[0]['fieldsV1'] == {'f:status': {'f:n': {}}}
    assert status[0]['subresource'] == 'status'


def test_too_many_editors_become_ancient_changes():
    live = thing({})
    for i in range(14):
        new = thing({}, labels={f'l{j}': '' for j in range(i + 1)})
        new['metadata']['managedFields'] = record_update(
            live, new, SCHEMA, Manager(f'm{i}', 'Update', 'v1'), datetime(2026, 1, 1, 0, i, tzinfo=UTC)
        )
        live = new
    names = [e['manager'] for e in live['metadata']['managedFields']]
    assert len(names) == fields.UPDATE_MANAGERS_MAX
    assert fields.ANCIENT in names
    assert 'm13' in names
    assert owner_paths(live, fields.ANCIENT) >= {'.metadata.labels.l0', '.metadata.labels.l3'}


def test_an_object_without_owners_belongs_to_before_first_apply():
    result = apply(thing({'replicas': 1}), thing({'replicas': 2}), SCHEMA, A, NOW)
    assert result.conflicts[0].owner.name == fields.BEFORE_FIRST_APPLY


def test_kubectl_takes_over_what_it_applied_client_side():
    kubectl = Manager('kubectl', 'Apply', 'v1')
    live = thing({'replicas': 1}, annotations={fields.LAST_APPLIED: '{"spec":{"replicas":1}}'})
    client_side = Manager('kubectl-client-side-apply', 'Update', 'v1')
    live['metadata']['managedFields'] = record_update(None, live, SCHEMA, client_side, NOW)
    assert applied(live, thing({'replicas': 2}), kubectl)['spec']['replicas'] == 2
    assert apply(live, thing({'replicas': 2}), SCHEMA, A, NOW).conflicts


_specs = st.fixed_dictionaries(
    {},
    optional={
        'replicas': st.integers(0, 2),
        'containers': st.lists(st.sampled_from('abc'), unique=True, max_size=3).flatmap(
            lambda names: st.tuples(*[st.fixed_dictionaries({'name': st.just(n)}, optional={'image': st.sampled_from('xy')})  # noqa: E501
                                      for n in names]).map(list)
        ),
    },
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from([A, B]), _specs), min_size=1, max_size=5))
def test_forced_applies_leave_exactly_what_the_managers_last_asked_for(steps):
    live, last = None, {}
    for who, spec in steps:
        live = applied(live, thing(spec), who, force=True)
        last[who.name] = spec
    final = steps[-1][1]
    got = fieldsets.leaves({'spec': live.get('spec', {})}, SCHEMA)
    want = fieldsets.leaves({'spec': final}, SCHEMA)
    assert {p: got.get(p) for p in want if p != ('f:spec',) and want[p] != []} == {
        p: v for p, v in want.items() if p != ('f:spec',) and v != []
    }
    asked = {p for spec in last.values() for p in fieldsets.leaves({'spec': spec}, SCHEMA)}
    assert {p for p in got if got[p] not in ({}, [])} <= asked


@given(st.dictionaries(st.sampled_from('abc'), st.dictionaries(st.sampled_from('xyz'), st.just({}))))
def test_field_sets_survive_encoding(tree):
    paths = {(f'f:{a}', f'f:{b}') for a, inner in tree.items() for b in inner} | {(f'f:{a}',) for a in tree}
    assert fieldsets.decode(fieldsets.encode(paths)) == paths


@given(_specs, _specs)
def test_the_quick_difference_is_that_of_the_leaves(old, new):
    before, after = fieldsets.leaves({'spec': old}, SCHEMA), fieldsets.leaves({'spec': new}, SCHEMA)
    changed = {p for p, v in after.items() if p not in before or before[p] != v}
    assert fieldsets.diff({'spec': old}, {'spec': new}, SCHEMA) == (changed, before.keys() - after.keys())


_item = st.fixed_dictionaries(
    {'name': st.sampled_from('ab')},
    optional={'image': st.just('x'), 'args': st.just([]), 'ports': st.lists(st.just({'port': 1}), max_size=1)},
)
_labels = st.dictionaries(st.sampled_from('zya'), st.text(max_size=1))
_some_meta = {'labels': _labels, 'finalizers': st.lists(st.sampled_from('ba'))}
_some_spec = {
    'replicas': st.integers(),
    'selector': st.just({'matchLabels': {'a': '1'}}),
    'containers': st.lists(_item, max_size=3),
    'other': st.sampled_from([None, 1, [], {}, [{}], {'x': []}]),
}
_things = st.fixed_dictionaries(
    {},
    optional={
        'metadata': st.fixed_dictionaries({}, optional=_some_meta),
        'spec': st.fixed_dictionaries({}, optional=_some_spec),
    },
)


@given(_things)
def test_a_description_is_the_encoded_leaves_in_the_same_order(obj):
    paths = fieldsets.leaves(obj, SCHEMA)
    described = fieldsets.describe(obj, SCHEMA)
    assert orjson.dumps(described) == orjson.dumps(fieldsets.encode(paths))
    assert all(fieldsets.contains(described, path) for path in paths)
    absent = {path[:-1] for path in paths if path[:-1]} - paths.keys() | {('f:spec', 'f:nothing')}
    assert not any(fieldsets.contains(described, path) for path in absent)


@given(_things, _things, st.sampled_from([U, Manager('other', 'Update', 'v1')]))
def test_an_update_leaves_every_field_with_its_last_writer(old, new, who):
    live = {**old, 'metadata': {**old.get('metadata', {})}}
    live['metadata']['managedFields'] = record_update(None, live, SCHEMA, U, NOW)
    entries = record_update(live, new, SCHEMA, who, LATER)
    owned = {o.manager: o.paths for o in fields.read_managed(entries)}
    before, after = (fieldsets.leaves(fields._ownable(o, '', has_status=True), SCHEMA) for o in (old, new))
    changed = {p for p, v in after.items() if p not in before or before[p] != v}
    assert owned.get(who, set()) >= changed
    assert set().union(*owned.values()) == after.keys()
    assert sum(map(len, owned.values())) == len(after)
