"""Estimates of cost are upstream's to the unit.

The figures are facts from apiextensions-apiserver's compilation_test.go (TestCostEstimation): each rule once with no
limits in the schema and once with limits of `most`.
"""

from typing import Any

import pytest

from kapi.crd.budget import check_costs
from kapi.crd.cost import ENDLESS, estimate
from kapi.crd.decls import decl_of
from kapi.kinds.apiextensions.customresourcedefinition import KIND


def limited(props: dict[str, Any], word: str, most: int | None) -> dict[str, Any]:
    return props if most is None else {**props, word: most}


def plain(kind: str, most: int | None = None) -> dict[str, Any]:
    if kind == 'int-or-string':
        return {'x-kubernetes-int-or-string': True}
    if kind in {'duration', 'date', 'date-time', 'byte'}:
        return {'type': 'string', 'format': kind}
    return limited({'type': kind}, 'maxLength', most) if kind == 'string' else {'type': kind}


NEEDY = {'type': 'object', 'properties': {'required': {'type': 'string'}, 'other': {'type': 'string'}},
         'required': ['required']}  # fmt: skip
NUMBERS = {'type': 'object', 'additionalProperties': plain('number')}
BEFORE_AFTER = {'before': plain('string', 2), 'after': plain('string', 4)}


def array(items: Any) -> Any:
    items = plain(items) if isinstance(items, str) else items
    return lambda most: limited({'type': 'array', 'items': items}, 'maxItems', most)


def mapping(values: Any) -> Any:
    values = plain(values) if isinstance(values, str) else values
    return lambda most: limited({'type': 'object', 'additionalProperties': values}, 'maxProperties', most)


def texts(most: int | None) -> Any:
    return limited({'type': 'array', 'items': plain('string', most)}, 'maxItems', most)


def text(most: int | None) -> Any:
    return plain('string', most)


def raw(most: int | None) -> Any:
    return limited(plain('byte'), 'maxLength', most)


def words(most: int | None) -> Any:
    return limited({'type': 'string', 'enum': ['A', 'B', 'C', 'LongValue']}, 'maxLength', most)


def fields(**properties: Any) -> Any:
    return lambda most: {'type': 'object', 'properties': {k: v or plain('string', most) for k, v in properties.items()}}


CASES = [
    (array('number'), 'self.all(x, true)', 4718591, 10, 32),
    (array('string'), 'self.all(x, true)', 3145727, 20, 62),
    (array('boolean'), 'self.all(x, true)', 1887437, 5, 17),
    (array(array('number')(None)), 'self.all(x, true)', 3145727, 100, 302),
    (array(NEEDY), 'self.all(x, true)', 555128, 50, 152),
    (mapping('number'), 'self.all(x, true)', 1348169, 10, 32),
    (mapping('string'), 'self.all(x, true)', 1179647, 3, 11),
    (mapping('boolean'), 'self.all(x, true)', 943718, 100, 302),
    (text, "self.contains('test')", 314574, 10, 5),
    (text, "self.startsWith('test')", 2, 15, 2),
    (text, "self.endsWith('test')", 2, 30, 2),
    (text, 'size(self + "hello") > size("hello")', 314578, 4, 7),
    (array('number'), 'self[1] == 0.0', 2, 5000, 2),
    (array('string'), 'self[1] == self[1]', 314577, 8, 314577),
    (array('number'), 'self.all(x, self.all(y, true))', None, 10, 352),
    (array('number'), 'self.all(x, self.all(y, self.all(z, true)))', None, 10, 3552),
    (text, 'self.matches("x")', 314574, 50, 22),
    (text, '"".matches("(((((((((())))))))))[0-9]")', 7, 10, 7),
    (text, 'self.matches("")', 1, 100, 1),
    (mapping('string'), 'self.all(x, x.contains(self[x]))', 2752507, 10, 72),
    (mapping('number'), 'self["x"] == 0.0', 2, 0, 2),
    (text, 'self == "x"', 2, 0, 1),
    (raw, 'self == b"x"', 2, 0, 1),
    (array('number'), 'self.all(x, x == 0.0)', 6291454, 3 * 1024 * 2048, 25165826),
    (array(mapping(NEEDY)(None)), 'self.all(x, x["y"].required == "z")', 7340027, 10, 72),
    (array('int-or-string'), 'self.all(x, true)', 4718591, 10, 32),
    (array('int-or-string'), 'self[0] == 5', 3, 10, 3),
    (array('boolean'), 'self[0] == false', 2, 25, 2),
    (array(NEEDY), 'self[0] == null', 2, 422, 2),
    (array(array('number')(None)), 'self[0][0] == -1.0', 3, 51, 3),
    (array(NUMBERS), 'self.all(x, x.y == 25.2)', 6291452, 12, 74),
    (array(NUMBERS), 'self[0].x > 2.0', 4, 3000, 4),
    (array('duration'), 'self.all(x, true)', 2359295, 5, 17),
    (array('duration'), 'self[0].getHours() == 2', 4, 525, 4),
    (array('date'), 'self.all(x, true)', 725936, 15, 47),
    (array('date'), 'self[2].getDayOfMonth() == 13', 4, 42, 4),
    (array('date-time'), 'self.all(x, true)', 428963, 25, 77),
    (mapping('int-or-string'), 'self.all(x, true)', 1348169, 15, 47),
    (mapping(NEEDY), 'self.all(x, true)', 428963, 20, 62),
    (mapping(NUMBERS), 'self.all(x, true)', 1179647, 10, 32),
    (mapping('duration'), 'self.all(x, true)', 1048577, 5, 17),
    (mapping('date'), 'self.all(x, true)', 524288, 10, 32),
    (mapping('date-time'), 'self.all(x, true)', 349526, 25, 77),
    (text, "self.find('[0-9]+') == ''", 629147, 10, 11),
    (texts, "self.join(' ') == 'aa bb'", 329853068905, 10, 43),
    (texts, 'self.isSorted() == true', 329854432052, 10, 52),
    (fields(str=None, **BEFORE_AFTER), "self.str.replace(self.before, self.after) == 'does not matter'", 629154, 4, 12),
    (fields(str=None, separator=None), 'self.str.split(self.separator) == []', 629160, 10, 22),
    (text, "self.lowerAscii() == 'lower!'", 314575, 10, 6),
    (mapping('integer'), 'oldSelf.size() == self.size()', 5, 10, 5),
    (mapping('date-time'), 'self["a"] == self["b"]', 8, 7, 8),
    (mapping('duration'), 'self["c"] == self["d"]', 8, 42, 8),
    (words, "self.contains('A')", 2, 1000, 401),
]  # fmt: skip


@pytest.mark.parametrize(('schema', 'rule', 'without', 'most', 'within'), CASES)
def test_a_rule_costs_what_upstream_reckons(schema, rule, without, most, within):
    free = estimate(rule, decl_of(schema(None)))
    assert free == without if without is not None else free > 10_000_000
    assert estimate(rule, decl_of(schema(most))) == within


def test_what_a_conversion_makes_has_no_known_size():
    """So a message put together from numbers is refused, and one that is formatted is not."""
    limits = {'type': 'object', 'properties': {'min': {'type': 'integer'}, 'max': {'type': 'integer'}}}
    joined = "'min (' + string(self.min) + ') is over max (' + string(self.max) + ')'"
    assert estimate(joined, decl_of(limits)) > ENDLESS // 11
    assert estimate("'min (%d) is over max (%d)'.format([self.min, self.max])", decl_of(limits)) == 17


def object_of(**properties: Any) -> dict[str, Any]:
    return {'type': 'object', 'properties': properties}


def complaints(props: dict[str, Any]) -> list[tuple[str, str]]:
    return [(b.field, b.message.partition(' (try')[0]) for b in check_costs(props, 'spec.validation.openAPIV3Schema')]


def cases_of(length: int, most: int | None) -> dict[str, Any]:
    """A list whose elements have a rule that compares two texts."""
    element = object_of(message=plain('string', 4096), wanted=plain('string', length))
    element['x-kubernetes-validations'] = [{'rule': '!self.message.contains(self.wanted)'}]
    return object_of(cases=array(element)(most))


def test_a_rule_that_costs_too_much_is_refused_by_its_place_and_factor():
    at = 'spec.validation.openAPIV3Schema.properties[cases].items.x-kubernetes-validations[0].rule'
    assert complaints(cases_of(4096, 20)) == [(at, 'Forbidden: estimated rule cost exceeds budget by factor of 5.4x')]
    assert complaints(cases_of(512, 20)) == []
    unlimited = complaints(cases_of(64, None))
    assert (at, 'Forbidden: estimated rule cost exceeds budget by factor of more than 100x') in unlimited


def test_rules_that_are_cheap_alone_can_be_too_dear_together():
    one = {'rule': 'self.all(x, x == 0.0)'}
    props = object_of(a={**array('number')(None), 'x-kubernetes-validations': [one] * 16})
    *named, last = complaints(props)
    share = 'Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema'
    assert [text for _, text in named] == [share] * 4
    what = 'x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema'
    assert last == ('spec.validation.openAPIV3Schema', f'Forbidden: {what} exceeds budget by factor of 1.006633x')


def test_a_message_that_may_be_endless_is_refused():
    props = object_of(spec={**object_of(n={'type': 'integer'}), 'x-kubernetes-validations': [
        {'rule': 'self.n > 1', 'messageExpression': "'it is ' + string(self.n)"}]})  # fmt: skip
    at = 'spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].messageExpression'
    text = 'Forbidden: estimated messageExpression cost exceeds budget by factor of more than 100x'
    assert complaints(props)[0] == (at, text)


def test_a_schema_that_is_stored_already_may_stay_as_dear_as_it_is():
    def definition(schema: dict[str, Any]) -> dict[str, Any]:
        version = {'name': 'v1', 'served': True, 'storage': True, 'schema': {'openAPIV3Schema': schema}}
        named = {'plural': 'things', 'singular': 'thing', 'kind': 'Thing', 'listKind': 'ThingList'}
        spec = {'group': 'a.example', 'scope': 'Namespaced', 'names': named, 'versions': [version]}
        return {'metadata': {'name': 'things.a.example'}, 'spec': spec, 'status': {'storedVersions': ['v1']}}

    dear, cheap = definition(cases_of(4096, 20)), definition(cases_of(512, 20))
    assert [b.cause for b in KIND.strategy.validate(dear, None)] == ['FieldValueForbidden']
    assert list(KIND.strategy.validate(dear, dear)) == []
    assert [b.cause for b in KIND.strategy.validate(dear, cheap)] == ['FieldValueForbidden']


@pytest.mark.parametrize(
    'rule', ['self.n' + ' + 1' * 2400 + ' > 1', 'self' + '.a' * 4000 + ' == 1', '(' * 400 + 'true' + ')' * 400,
             '[1]' + '.map(x, x)' * 800 + ' == []']
)  # fmt: skip
def test_a_rule_that_is_nested_too_deeply_counts_as_endless(rule):
    assert estimate(rule, decl_of(object_of(n={'type': 'integer'}))) == ENDLESS


def test_long_chains_of_truths_and_signs_are_fine():
    decl = decl_of(object_of(n={'type': 'integer'}))
    one = estimate('self.n > 1', decl)
    assert estimate(' && '.join(['self.n > 1'] * 900), decl) == 900 * one
    assert estimate('!' * 9000 + 'true', decl) == 0
    assert estimate('!' * 9001 + 'true', decl) == 1
    assert estimate('-' * 9000 + '1 > 0', decl) == 1
