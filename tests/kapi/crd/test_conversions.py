"""Conversions of CEL, as the cel-spec's own tests and cel-go have them."""

from __future__ import annotations

import pytest

from kapi.crd.celengine import compiled, engine

AT = "timestamp('2009-02-13T23:31:30Z')"
EVENING = "timestamp('2009-02-13T02:00:00Z')"


def value(expression: str, **variables: object) -> object:
    module, functions = engine()
    return compiled(expression).execute(module.Context(variables=variables, functions=functions))


@pytest.mark.parametrize(
    ('expression', 'text'),
    [
        ('123', '123'), ('-456', '-456'), ('9876u', '9876'), ("'a'", 'a'), ('true', 'true'), ('type(1)', 'int'),
        ("b'\\303\\277'", 'ÿ'),
        ('123.456', '123.456'), ('-4.5e-3', '-0.0045'), ('1.0', '1'), ('0.0', '0'), ('-0.0', '-0'),
        ('100000.0', '100000'),
        ('1e6', '1e+06'), ('123456789.0', '1.23456789e+08'), ('0.00001', '1e-05'), ("double('-inf')", '-Inf'),
        (AT, '2009-02-13T23:31:30Z'), ("timestamp('2009-02-13T23:31:30.5+02:00')", '2009-02-13T23:31:30.5+02:00'),
        ("timestamp('0001-01-01T00:00:00Z')", '0001-01-01T00:00:00Z'),
        ("duration('1000000s')", '1000000s'), ("duration('1h30m')", '5400s'), ("duration('1.5s')", '1.5s'),
        ("duration('-1.5s')", '-1.5s'), ("duration('100us')", '0.0001s'), ("duration('0s')", '0s'),
    ],
)  # fmt: skip
def test_a_value_becomes_the_text_that_cel_go_makes_of_it(expression, text):
    assert value(f'string({expression})') == text
    assert value(f"'%s'.format([{expression}])") == text


@pytest.mark.parametrize(
    ('expression', 'expected'),
    [
        (f'int({AT})', 1234567890), ("int(duration('5s'))", 5_000_000_000), ('int(-7.9)', -7), ("int('987')", 987),
        (f'timestamp(1234567890) == {AT}', True), ("duration(1500000000) == duration('1.5s')", True),
        (f"{AT}.getDate('Australia/Sydney')", 14), (f"{AT}.getDayOfMonth('US/Central')", 12),
        (f"{AT}.getDayOfMonth('+11:00')", 13), (f"{EVENING}.getDayOfMonth('-02:30')", 11),
        (f"{EVENING}.getDayOfMonth('America/St_Johns')", 11), (f"{AT}.getDayOfWeek('UTC')", 5),
        (f"{AT}.getDayOfYear('US/Central')", 43), (f"{AT}.getFullYear('-09:30')", 2009),
        (f"{AT}.getHours('02:00')", 1), (f"{AT}.getMinutes('Asia/Kathmandu')", 16), (f"{AT}.getMonth('UTC')", 1),
        (f"{AT}.getSeconds('-00:00')", 30), (f"{AT}.getMilliseconds('UTC')", 0), (f'{AT}.getDayOfMonth()', 12),
        ("'%s'.format([[1, 'a', 2.5, true, null, b'b']])", '[1, "a", 2.500000, true, null, b"b"]'),
        (f"'%s'.format([[{AT}, duration('1s')]])", '[timestamp("2009-02-13T23:31:30Z"), duration("1s")]'),
        ("'%s'.format([{'b': [1], 'a': 'x'}])", '{"a":"x", "b":[1]}'),
        ("'%x %X %b %o %d %.1f%%'.format(['ab', 255, true, 8, 1u, 2.25])", '6162 FF 1 10 1 2.2%'),
        ("['string(1)'].map(string, string + string(string.size()))", ['string(1)9']),
    ],
)  # fmt: skip
def test_conversions_that_the_evaluator_lacks_are_there(expression, expected):
    assert value(expression) == expected


@pytest.mark.parametrize(
    ('expression', 'why'),
    [
        ('string(null)', 'no such overload'), ('string([1])', 'no such overload'), ('int(true)', 'no such overload'),
        ("string(b'\\000\\xff')", 'invalid UTF-8'), ("'%d'.format(['x'])", 'no such overload'),
        (f"{AT}.getDate('Nowhere')", 'unknown time zone Nowhere'), ("'%s'.format([])", 'index out of range'),
        ('timestamp(true)', 'no such overload'), ('duration(true)', 'no such overload'),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_an_error_that_says_so(expression, why):
    with pytest.raises(RuntimeError, match=why):
        value(expression)


def test_a_variable_may_be_called_like_a_conversion():
    assert value("string == 'a' && string(1) == '1' && {'string': 2}.string == 2", string='a') is True
