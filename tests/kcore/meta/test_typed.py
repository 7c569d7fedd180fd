"""What server-side apply says of a configuration that does not fit, in upstream's words."""

import pytest

from kcore.meta.schema import ANY, Node
from kcore.meta.typed import joined, misfits

PORTS = Node(
    'array', list_type='map', keys=('port', 'protocol'),
    items=Node('object', fields={'port': Node('int32'), 'protocol': Node('string')}),
)  # fmt: skip
NAMED = Node('array', list_type='map', keys=('name',), items=Node('object', fields={'name': Node('string')}))
SCHEMA = Node('object', fields={
    'n': Node('int32'), 's': Node('string'), 'b': Node('boolean'), 'any': ANY, 'ports': PORTS, 'named': NAMED,
    'set': Node('array', list_type='set', items=Node('string')), 'plain': Node('array', items=Node('string')),
    'labels': Node('map', items=Node('string')), 'quantity': Node('quantity'),
    'kept': Node('object', preserve_unknown=True, fields={'n': Node('int32')}),
})  # fmt: skip


@pytest.mark.parametrize(
    ('obj', 'said'),
    [
        ({'n': 1, 's': 'x', 'b': True, 'any': {'a': [1]}, 'labels': {'a': 'b'}, 'quantity': 1}, []),
        ({'plain': ['a', 'a']}, []),
        ({'n': None, 'ports': None}, []),
        ({'kept': {'more': {'x': 1}}}, []),
        ({'kept': {'n': 'x'}}, ['.kept.n: expected numeric (int or float), got string']),
        ({'foo': 1, 'labels': {'a': 1}}, [
            '.foo: field not declared in schema',
            '.labels.a: expected string, got &value.valueUnstructured{Value:1}',
        ]),
        ({'n': 'lots'}, ['.n: expected numeric (int or float), got string']),
        ({'b': 'true'}, ['.b: expected boolean, got &{true}']),
        ({'labels': [1]}, ['.labels: expected map, got &{[1]}']),
        ({'plain': 'x'}, ['.plain: expected list, got &{x}']),
        ({'quantity': {'a': 1}}, ['.quantity: expected any scalar, got &{map[a:1]}']),
        ({'ports': [{'port': 1}, {'port': 1, 'protocol': 'UDP'}]}, []),
        ({'ports': [{'port': 1}, {'port': 1}]}, ['.ports: duplicate entries for key [port=1,protocol="TCP"]']),
        ({'named': [{'name': 'x', 'foo': 1}]}, ['.named[name="x"].foo: field not declared in schema']),
        ({'named': ['x']}, ['.named: element 0: associative list with keys may not have non-map elements']),
        ({'named': [{}]}, [
            '.named: element 0: associative list with keys has an element that omits all key fields ["name"] '
            "(and doesn't have default values for any key fields)"
        ]),
        ({'set': ['a', 'a']}, ['.set: duplicate entries for key [="a"]']),
    ],
)  # fmt: skip
def test_every_misfit_is_named_and_nothing_else(obj, said):
    assert misfits(obj, SCHEMA) == said


def test_several_misfits_are_listed():
    assert joined(['.a: x', '.b: y']) == 'errors:\n  .a: x\n  .b: y'
    assert joined(['.a: x']) == '.a: x'
