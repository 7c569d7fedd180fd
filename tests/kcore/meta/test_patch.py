"""The three patch formats, against tables and against slow references."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.meta import patch
from kcore.meta.schema import Node

_string = Node('string')
ITEM = Node('object', 'Item', {'name': _string, 'value': _string})
_item_list = Node('array', items=ITEM, merge_key='name', strategies=('merge',))
ITEM.fields['inner'] = _item_list
SCHEMA = Node(
    'object',
    'Root',
    {
        'items': _item_list,
        'atoms': Node('array', items=_string),
        'set': Node('array', items=_string, strategies=('merge',)),
        'labels': Node('map', items=_string),
        'strategy': Node(
            'object', 'S', {'type': _string, 'rolling': Node('map', items=_string)}, strategies=('retainKeys',)
        ),
        'whole': Node('map', items=_string, strategies=('replace',)),
    },
)


def item(name, **more):
    return {'name': name, **more}


@pytest.mark.parametrize(
    ('before', 'change', 'after'),
    [
        ({'labels': {'a': '1'}}, {'labels': {'b': '2', 'a': None}}, {'labels': {'b': '2'}}),
        ({'atoms': ['a']}, {'atoms': ['b']}, {'atoms': ['b']}),
        ({'set': ['a', 'b']}, {'set': ['c', 'a']}, {'set': ['c', 'a', 'b']}),
        ({'set': ['a', 'b']}, {'$deleteFromPrimitiveList/set': ['a']}, {'set': ['b']}),
        ({'items': [item('a', value='1')]}, {'items': [item('a', value='2')]}, {'items': [item('a', value='2')]}),
        ({'items': [item('a'), item('b')]}, {'items': [item('c')]}, {'items': [item('c'), item('a'), item('b')]}),
        ({'items': [item('a'), item('b')]}, {'items': [{'$patch': 'delete', 'name': 'a'}]}, {'items': [item('b')]}),
        ({'items': [item('a')]}, {'items': [{'$patch': 'replace'}, item('z')]}, {'items': [item('z')]}),
        (
            {'items': [item('a'), item('b'), item('s')]},
            {'$setElementOrder/items': [item('b'), item('a')], 'items': [item('a', value='1')]},
            {'items': [item('b'), item('a', value='1'), item('s')]},
        ),
        (
            {'items': [item('a'), item('b')]},
            {'$setElementOrder/items': [item('b'), item('a')]},
            {'items': [item('b'), item('a')]},
        ),
        (
            {'strategy': {'type': 'R', 'rolling': {'x': '1'}}},
            {'strategy': {'$retainKeys': ['type'], 'type': 'N'}},
            {'strategy': {'type': 'N'}},
        ),
        ({'labels': {'a': '1'}}, {'labels': {'$patch': 'replace', 'b': '1'}}, {'labels': {'b': '1'}}),
        ({'labels': {'a': '1'}}, {'labels': {'$patch': 'delete'}}, {'labels': {}}),
        ({'whole': {'a': '1'}}, {'whole': {'b': '1'}}, {'whole': {'b': '1'}}),
        ({}, {'items': [item('a', value=None), {'$patch': 'delete', 'name': 'b'}]}, {'items': [item('a')]}),
        (
            {'items': [item('a', inner=[item('x')])]},
            {'items': [item('a', inner=[item('y')])]},
            {'items': [item('a', inner=[item('y'), item('x')])]},
        ),
    ],
)
def test_strategic_merge_follows_the_schema(before, change, after):
    assert patch.strategic_merge_patch(before, change, SCHEMA) == after


@pytest.mark.parametrize(
    ('change', 'error'),
    [
        ({'labels': {'$patch': 'explode'}}, 'unknown patch type found: explode'),
        ({'items': [{'value': 'x'}]}, 'does not contain declared merge key: name'),
        ({'items': [{'$patch': 'delete'}]}, 'delete patch type with no merge key defined'),
        ({'$setElementOrder/items': [item('b'), item('a')], 'items': [item('a'), item('b')]}, "doesn't match"),
        ({'strategy': {'$retainKeys': ['type'], 'rolling': {}}}, 'is not in its $retainKeys list'),
    ],
)
def test_a_malformed_strategic_patch_is_named(change, error):
    before = {'labels': {'a': '1'}, 'items': [item('a'), item('b')], 'strategy': {'type': 'R'}}
    with pytest.raises(patch.BadPatch) as raised:
        patch.strategic_merge_patch(before, change, SCHEMA)
    assert error in str(raised.value)


def test_patches_leave_their_arguments_alone():
    before = {'items': [item('a')], 'labels': {'x': '1'}}
    patch.strategic_merge_patch(before, {'items': [item('a', value='2')], 'labels': {'x': None}}, SCHEMA)
    patch.merge_patch(before, {'labels': {'x': None}})
    patch.json_patch(before, [{'op': 'remove', 'path': '/labels/x'}])
    assert before == {'items': [item('a')], 'labels': {'x': '1'}}


_json = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.text('ab', max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from('abc'), inner, max_size=3),
    max_leaves=8,
)
_objects = st.dictionaries(st.sampled_from('abcd'), _json, max_size=4)


@given(_objects, _objects)
def test_a_two_way_merge_patch_leads_from_one_object_to_the_other(old, new):
    assert patch.merge_patch(old, patch.two_way_merge_patch(old, new)) == new
    assert patch.two_way_merge_patch(new, new) == {}


@given(_objects, _objects)
def test_without_keyed_lists_strategic_merge_is_a_merge_patch(old, change):
    assert patch.strategic_merge_patch(old, change, Node('any')) == patch.merge_patch(old, change)


_names = st.lists(st.sampled_from('abcde'), unique=True, max_size=4)


@given(_names, _names)
def test_a_keyed_list_holds_exactly_the_union_of_both_sides(before, change):
    merged = patch.strategic_merge_patch(
        {'items': [item(n, value='old') for n in before]}, {'items': [item(n, value='new') for n in change]}, SCHEMA
    )['items']
    assert {i['name']: i['value'] for i in merged} == dict.fromkeys(before, 'old') | dict.fromkeys(change, 'new')
    assert [i['name'] for i in merged if i['name'] in change] == change
    assert [i['name'] for i in merged if i['name'] not in change] == [n for n in before if n not in change]


def test_json_patch_errors_have_their_own_kinds():
    with pytest.raises(patch.PatchFailed):
        patch.json_patch({'a': 1}, [{'op': 'test', 'path': '/a', 'value': 2}])
    with pytest.raises(patch.PatchFailed):
        patch.json_patch({}, [{'op': 'remove', 'path': '/a/b'}])
    with pytest.raises(patch.BadPatch):
        patch.json_patch({}, [{'op': 'explode', 'path': '/a'}])
    with pytest.raises(patch.BadPatch):
        patch.json_patch({}, {'op': 'add'})
    with pytest.raises(patch.PatchTooLarge):
        patch.json_patch({}, [{'op': 'add', 'path': '/a', 'value': 1}] * (patch.MAX_JSON_PATCH_OPERATIONS + 1))


def test_copies_that_double_what_is_there_are_stopped():
    copies = [{'op': 'copy', 'from': '/a', 'path': f'/a/k{i}'} for i in range(40)]
    assert len(patch.json_patch({'a': {'x': 1}}, copies[:10])['a']) == 11
    with pytest.raises(patch.PatchFailed, match='exceeding the limit 3145728'):
        patch.json_patch({'a': {'x': 1}}, copies)
    with pytest.raises(patch.PatchFailed):
        patch.json_patch({}, [{'op': 'replace', 'path': '', 'value': []}])


def test_a_bottomless_patch_is_refused():
    deep = {}
    for _ in range(100_000):
        deep = {'a': deep}
    with pytest.raises(patch.BadPatch, match='too deeply'):
        patch.merge_patch({}, deep)
    while deep:  # unlink from the top: dropping it whole would recurse in the interpreter
        deep = deep['a']
