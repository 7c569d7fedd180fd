"""Label and field selectors: what they match, how they print, which texts they refuse."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.meta.selectors import (
    SelectorError,
    format_selector,
    from_label_selector,
    from_labels,
    parse_field_selector,
    parse_label_selector,
)


@pytest.mark.parametrize(
    ('text', 'labels', 'matches'),
    [
        ('', {}, True),
        ('a=b', {'a': 'b'}, True),
        ('a==b', {'a': 'c'}, False),
        ('a!=b', {}, True),
        ('a!=b', {'a': 'b'}, False),
        ('a in (b,c)', {'a': 'c'}, True),
        ('a in (b,c)', {}, False),
        ('a notin (b,c)', {}, True),
        ('a notin (b)', {'a': 'b'}, False),
        ('a', {'a': ''}, True),
        ('!a', {'a': 'x'}, False),
        ('!a', {}, True),
        ('a=', {'a': ''}, True),
        ('a>3', {'a': '4'}, True),
        ('a<3', {'a': 'x'}, False),
        ('a=b,c in (d),!e', {'a': 'b', 'c': 'd'}, True),
        ('example.com/a = b , x', {'example.com/a': 'b', 'x': '1'}, True),
    ],
)
def test_a_label_selector_matches_as_kubernetes_does(text, labels, matches):
    assert parse_label_selector(text).matches(labels) is matches


@pytest.mark.parametrize(
    ('text', 'error'),
    [
        ('a in x', "unable to parse requirement: found 'x', expected: '('"),
        ('a=b,', "found '', expected: identifier after ','"),
        ('=b', "found '=', expected: !, identifier, or 'end of string'"),
        ('a b', "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ('a=' + 'x' * 64, 'must be no more than 63 characters'),
        ('a>b', "'Gt', 'Lt' operators, the value must be an integer"),
    ],
)
def test_a_broken_label_selector_says_what_is_wrong(text, error):
    with pytest.raises(SelectorError) as raised:
        parse_label_selector(text)
    assert error in str(raised.value)


def test_a_selector_object_prints_in_canonical_order():
    selector = {
        'matchLabels': {'z': '1', 'b': '2'},
        'matchExpressions': [{'key': 'c', 'operator': 'In', 'values': ['y', 'x']}],
    }
    assert str(from_label_selector(selector)) == 'b=2,c in (x,y),z=1'


def test_an_absent_selector_matches_nothing_and_an_empty_one_everything():
    assert not from_label_selector(None).matches({'a': 'b'})
    assert from_label_selector({}).matches({})
    assert not from_labels({}).matches({})
    assert format_selector({}) == '<none>'
    assert format_selector({'matchExpressions': [{'key': 'a', 'operator': 'Is'}]}) == '<error>'


_word = st.text('abcXYZ019', min_size=1, max_size=8)


@given(st.dictionaries(_word, _word, max_size=4), st.dictionaries(_word, _word, max_size=4))
def test_printing_and_parsing_a_selector_changes_nothing(wanted, labels):
    first = from_label_selector({'matchLabels': wanted})
    again = parse_label_selector(str(first))
    assert again == first
    assert again.matches(labels) == all(labels.get(k) == v for k, v in wanted.items())


@given(st.text(max_size=40))
def test_no_text_makes_the_parsers_fail_in_another_way(text):
    for parse in (parse_label_selector, parse_field_selector):
        with contextlib.suppress(SelectorError):
            parse(text)


def test_field_selectors_know_both_operators_and_escapes():
    selector = parse_field_selector(r'metadata.name=a,status.phase!=Run\,ning')
    values = {'metadata.name': 'a', 'status.phase': 'Run,ning'}
    assert not selector.matches(lambda f: values.get(f, ''))
    values['status.phase'] = 'Pending'
    assert selector.matches(lambda f: values.get(f, ''))
    assert selector.exact('metadata.name') == 'a'
    assert str(selector) == r'metadata.name=a,status.phase!=Run\,ning'


def test_a_field_selector_without_operator_is_refused():
    with pytest.raises(SelectorError, match="can't understand 'x'"):
        parse_field_selector('x')
