"""Parts that equal objects have in common are kept once, and nothing else changes."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from kcore.meta.sharing import share

LEAVES = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 2.5]) | st.sampled_from(['', 'a', 'b'])
)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from('abc'), inner, max_size=3),
    max_leaves=12,
)


@given(DOCUMENTS, DOCUMENTS)
def test_sharing_changes_neither_what_an_object_says_nor_its_model(new: object, model: object) -> None:
    said, modelled = orjson.dumps(new), orjson.dumps(model)
    assert orjson.dumps(share(new, model)) == said
    assert orjson.dumps(model) == modelled


@given(DOCUMENTS)
def test_an_equal_object_becomes_its_model(model: object) -> None:
    copy = orjson.loads(orjson.dumps(model))
    assert share(copy, model) is model or not isinstance(model, str | list | dict)


def test_siblings_share_all_but_what_differs() -> None:
    model = {'metadata': {'name': 'a', 'labels': {'app': 'x'}}, 'spec': {'containers': [{'name': 'c', 'image': 'one'}]}}
    made = share(orjson.loads(orjson.dumps({**model, 'metadata': {'name': 'b', 'labels': {'app': 'x'}}})), model)
    assert made['metadata'] == {'name': 'b', 'labels': {'app': 'x'}}
    assert made['spec'] is model['spec']
    assert made['metadata']['labels'] is model['metadata']['labels']


def test_true_and_one_are_not_the_same() -> None:
    assert share({'a': 1, 'b': [1.0]}, {'a': True, 'b': [1]}) == {'a': 1, 'b': [1.0]}
    assert type(share({'a': {'x': 1}}, {'a': {'x': True}})['a']['x']) is int
