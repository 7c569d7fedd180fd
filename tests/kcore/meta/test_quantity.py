"""Quantities: exact, rounded up, printed canonically."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.meta import quantity


@pytest.mark.parametrize(
    ('text', 'canonical', 'value', 'milli'),
    [
        ('0.5', '500m', 1, 500),
        ('1500m', '1500m', 2, 1500),
        ('1000m', '1', 1, 1000),
        ('1024Ki', '1Mi', 2**20, 2**20 * 1000),
        ('1.5Gi', '1536Mi', 3 * 2**29, 3 * 2**29 * 1000),
        ('1e3', '1e3', 1000, 10**6),
        ('0', '0', 0, 0),
        ('5n', '5n', 1, 1),
        ('.5', '500m', 1, 500),
        ('-5', '-5', -5, -5000),
        ('0.0000000001', '1n', 1, 1),
        ('512', '512', 512, 512000),
        ('1E', '1E', 10**18, 10**21),
        ('2k', '2k', 2000, 2 * 10**6),
    ],
)
def test_quantities_read_and_print_as_upstream(text, canonical, value, milli):
    assert (quantity.canonical(text), quantity.value(text), quantity.milli(text)) == (canonical, value, milli)


@pytest.mark.parametrize('text', ['', 'x', '1x', '1ki', '1 Gi', '--1', '1.2.3', 'e3', '1KiB', '1' * 200])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(quantity.QuantityError, match='quantities must match'):
        quantity.parse(text)


def test_numbers_are_quantities_too():
    assert quantity.canonical(2) == '2'
    assert quantity.canonical(0.1) == '100m'


def test_sums_keep_the_format_of_their_first_part():
    assert quantity.add('1Gi', '1Gi') == '2Gi'
    assert quantity.add('0', '512Mi') == '512Mi'
    assert quantity.subtract('1', '250m') == '750m'


@given(st.integers(-(10**15), 10**15), st.sampled_from(['n', 'u', 'm', '', 'k', 'M', 'Ki', 'Mi']))
def test_the_canonical_form_keeps_the_value(number, suffix):
    text = f'{number}{suffix}'
    exact = quantity.parse(text)
    if abs(exact) < 2**63 - 1:
        assert quantity.parse(quantity.canonical(text)) == exact
        assert (
            quantity.value(text) == -(-exact // 1)
            or exact == Decimal(quantity.value(text))
            or exact < quantity.value(text)
        )
