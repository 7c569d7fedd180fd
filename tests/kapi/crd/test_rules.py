"""CEL rules, structural checks, ratcheting and columns, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapi.crd import rules
from kapi.crd.checks import check_conversion, check_schema, check_selectable, check_subresources
from kapi.crd.columns import columns_of, parse_path, results
from kapi.crd.rules import Evaluation, RuleError, compile_rule, compile_tree
from kapi.crd.values import MISSING, Values
from kapi.schemas.structural import Structural
from kcore.env import Env

INT, STR = {'type': 'integer'}, {'type': 'string'}
RULES = 'x-kubernetes-validations'


def fields(**properties: Any) -> dict[str, Any]:
    return {'type': 'object', 'properties': properties}


def judged(props: dict[str, Any], new: Any, old: Any = MISSING) -> list[tuple[str, str]]:
    tree = compile_tree(props)
    assert tree is not None
    return [(b.field, b.message) for b in Evaluation().run(tree, new, old)]


def ruled(rule: str, **extra: Any) -> dict[str, Any]:
    spec = fields(min=INT, max=INT, name=STR, items={'type': 'array', 'items': INT})
    return fields(spec={**spec, RULES: [{'rule': rule, **extra}]})


def test_a_rule_compares_fields_and_names_the_place() -> None:
    props = ruled('self.min <= self.max', message='min is too big')
    assert judged(props, {'spec': {'min': 1, 'max': 2}}) == []
    assert judged(props, {'spec': {'min': 3, 'max': 2}}) == [('spec', 'Invalid value: "object": min is too big')]


def test_message_expression_reason_and_field_path_shape_the_refusal() -> None:
    props = ruled('self.min <= self.max', messageExpression="'min is ' + string(self.min)",
                  reason='FieldValueForbidden', fieldPath='.min')  # fmt: skip
    assert judged(props, {'spec': {'min': 3, 'max': 2}}) == [('spec.min', 'Forbidden: min is 3')]


def test_a_transition_rule_waits_for_an_old_value() -> None:
    props = ruled('self.name == oldSelf.name', message='name is immutable')
    assert judged(props, {'spec': {'name': 'b'}}) == []
    assert len(judged(props, {'spec': {'name': 'b'}}, {'spec': {'name': 'a'}})) == 1


def test_an_optional_old_value_can_be_asked_for() -> None:
    props = ruled('!oldSelf.hasValue() || oldSelf.value().name == self.name', optionalOldSelf=True)
    assert judged(props, {'spec': {'name': 'b'}}) == []
    assert len(judged(props, {'spec': {'name': 'b'}}, {'spec': {'name': 'a'}})) == 1


def test_an_optional_old_value_is_for_rules_that_ask_for_it() -> None:
    props = ruled('self.min > 1', optionalOldSelf=True)
    assert [(b.field, b.message) for b in check_schema(props, 'schema')] == [(
        'schema.properties[spec].x-kubernetes-validations[0].optionalOldSelf',
        'Invalid value: true: may not be set if oldSelf is not used in rule',
    )]  # fmt: skip


def test_a_missing_key_refuses_instead_of_crashing() -> None:
    found = judged(ruled('self.min > 1'), {'spec': {}})
    assert found == [('spec', 'Invalid value: "object": no such key: min evaluating rule: failed rule: self.min > 1')]


def test_what_did_not_change_is_not_judged_again() -> None:
    props = ruled('self.min > 5')
    same = {'spec': {'min': 1}}
    assert judged(props, same, {'spec': {'min': 1}}) == []
    assert len(judged(props, {'spec': {'min': 2}}, same)) == 1


def test_a_rule_that_would_take_too_long_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, 'STEPS_MAX', 1000)
    props = ruled('self.items.all(a, self.items.all(b, a <= b || a >= b))')
    [(_, message)] = judged(props, {'spec': {'items': list(range(100))}})
    assert 'running out of cost budget' in message


@pytest.mark.parametrize(
    ('rule', 'holds'),
    [
        ("quantity(self.name).isGreaterThan(quantity('1Gi'))", True),
        ("isURL('https://x/y') && url('https://x/y').getHost() == 'x'", True),
        ("cidr('10.0.0.0/8').containsIP(ip('10.1.2.3'))", True),
        ("'a-%s-%d'.format(['b', 3]) == 'a-b-3'", True),
        ('self.items.isSorted() && self.items.sum() == 6', True),
        ("self.name.find('[0-9]+') == '2'", True),
        ("self.name.split('G').size() == 2 && self.name.lowerAscii() == '2gi'", True),
        ('self.items.exists_one(i, i == 9)', False),
        ("string(has(self.name)) + string(1) == 'true1'", True),
    ],
)
def test_the_functions_that_kubernetes_adds(rule: str, holds: bool) -> None:
    assert (judged(ruled(rule), {'spec': {'name': '2Gi', 'items': [1, 2, 3]}}) == []) is holds


def test_types_follow_the_schema() -> None:
    props = {**fields(ratio={'type': 'number'}, at={'type': 'string', 'format': 'date-time'},
                      **{'a-b': INT, 'namespace': STR}),
             RULES: [{'rule': "self.ratio < 1.5 && self.at < timestamp('2027-01-01T00:00:00Z')"},
                     {'rule': "self.a__dash__b == 1 && self.__namespace__ == 'n'"}]}  # fmt: skip
    new = {'ratio': 1, 'at': '2026-01-01T00:00:00Z', 'a-b': 1, 'namespace': 'n'}
    assert judged(props, new) == []


@pytest.mark.parametrize(
    ('rule', 'text'),
    [
        ('self.min >', 'compilation failed: ERROR: <input>:1:11: Syntax error'),
        ('self.nope > 1', "compilation failed: ERROR: <input>:1:5: undefined field 'nope'"),
        ('other > 1', "compilation failed: ERROR: <input>: undeclared reference to 'other'"),
        ('frobnicate(self.min)', "compilation failed: ERROR: <input>: undeclared reference to 'frobnicate'"),
    ],
)
def test_a_rule_that_cannot_hold_is_refused_with_its_definition(rule: str, text: str) -> None:
    with pytest.raises(RuleError, match='compilation failed') as refusal:
        compile_rule({'rule': rule}, fields(min=INT))
    assert str(refusal.value).startswith(text)


@pytest.mark.parametrize(
    ('props', 'expected'),
    [
        ({}, 'x.type: Required value: must not be empty at the root'),
        ({'type': 'array', 'items': STR}, 'x.type: Invalid value: "array": must be object at the root'),
        (fields(a={}), 'x.properties[a].type: Required value: must not be empty for specified object fields'),
        (fields(a={'type': 'array', 'items': {}}), 'x.properties[a].items: Required value: must be specified'),
        (fields(a={'type': 'foo'}), 'x.properties[a].type: Unsupported value: "foo": supported values: "array", '
         '"boolean", "integer", "number", "object", "string"'),
        (fields(a={'type': 'string', 'anyOf': [{'type': 'string'}]}),
         'x.properties[a].anyOf[0].type: Forbidden: must be empty to be structural'),
        (fields(a={'type': 'array', 'items': STR, 'uniqueItems': True}), 'x.properties[a].uniqueItems: Forbidden: '
         'uniqueItems cannot be set to true since the runtime complexity becomes quadratic'),
        (fields(a={**fields(b=INT), 'additionalProperties': STR}), 'x.properties[a].additionalProperties: Forbidden: '
         'additionalProperties and properties are mutual exclusive'),
        (fields(a={'type': 'integer', 'default': 'x'}), 'x.properties[a].default: Invalid value: "string": '
         'x.properties[a].default in body must be of type integer: "string"'),
        (fields(metadata=fields(labels=STR)), 'x.properties[metadata]: Forbidden: must not specify anything other than '
         'name and generateName, but metadata is implicitly specified'),
        (fields(a={'type': 'array', 'items': fields(n=STR), 'x-kubernetes-list-type': 'map',
                   'x-kubernetes-list-map-keys': ['n']}), 'x.properties[a].items.properties[n].default: Required '
         'value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property'),
        (fields(a={'type': 'array', 'items': {**fields(n=STR), RULES: [{'rule': 'self.n == oldSelf.n'}]}}),
         'x.properties[a].items.x-kubernetes-validations[0].rule: Invalid value: "self.n == oldSelf.n": '
         'oldSelf cannot be used on the uncorrelatable portion of the schema'),
    ],
)  # fmt: skip
def test_the_usual_mistakes_in_a_schema_are_named(props: dict[str, Any], expected: str) -> None:
    assert expected in [f'{b.field}: {b.message}' for b in check_schema(props, 'x')]


def test_a_proper_schema_has_nothing_to_name() -> None:
    port = {'x-kubernetes-int-or-string': True, 'anyOf': [{'type': 'integer'}, {'type': 'string'}]}
    assert list(check_schema(fields(a=port, b={**fields(c=INT), 'oneOf': [{'required': ['c']}]}), 'x')) == []


def test_what_stands_beside_the_schema_is_checked_too() -> None:
    assert [b.field for b in check_subresources({'scale': {'specReplicasPath': '.x'}}, 's')] == [
        's.scale.specReplicasPath', 's.scale.statusReplicasPath',
    ]  # fmt: skip
    assert [b.field for b in check_selectable([{'jsonPath': '.spec.no'}], fields(spec=fields(a=STR)), 'f')] == [
        'f[0].jsonPath'
    ]
    bare = {'strategy': 'Webhook', 'webhook': {'conversionReviewVersions': ['v1']}}
    assert [b.field for b in check_conversion(bare)] == ['spec.conversion.webhookClientConfig']


def test_an_unchanged_value_that_became_wrong_is_forgiven_and_a_changed_one_is_not() -> None:
    judge = Values(fields(spec=fields(a={'type': 'string', 'maxLength': 1}, b=INT)))
    old = {'spec': {'a': 'long', 'b': 1}}
    assert list(judge.validate({'spec': {'a': 'long', 'b': 2}}, old)) == []
    assert len(list(judge.validate({'spec': {'a': 'longer', 'b': 2}}, old))) == 1


def test_defaults_fill_nested_objects_and_nulls_make_room_for_them() -> None:
    inner = {**fields(c={'type': 'integer', 'default': 3}), 'default': {}}
    schema = Structural(
        fields(a=inner, n={'type': 'string', 'nullable': True}, m={'type': 'integer', 'default': 1}), 'v1', 'K'
    )
    obj, _ = schema.conform({'a': None, 'n': None, 'm': None, 'z': 1}, 'Ignore')
    schema.default(obj)
    assert obj == {'a': {'c': 3}, 'n': None, 'm': 1}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('ab', max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from('abc'), inner, max_size=3),
    max_leaves=8,
)
SCHEMA = fields(
    a={'type': 'string', 'nullable': True}, b={'type': 'array', 'items': fields(a=INT, c={'type': 'boolean'})},
    c={'type': 'object', 'additionalProperties': {'type': 'integer', 'maximum': 5}},
)  # fmt: skip


@given(VALUES)
def test_pruning_and_defaulting_are_idempotent_and_the_fast_judge_agrees_with_the_slow(value: Any) -> None:
    from kapi.crd.values import walk

    obj = {'a': value, 'b': value, 'c': value, 'd': value}
    schema = Structural(SCHEMA, 'v1', 'K')
    schema.prune(obj)
    once = schema.settled(obj)
    assert schema.settled(once) == once
    judge = Values(SCHEMA)
    assert judge._fits(obj) == (next(walk(SCHEMA, obj, MISSING, ''), None) is None)


def test_columns_print_the_first_result_or_nothing(env: Env) -> None:
    [ready, count, missing] = columns_of([
        {'name': 'R', 'type': 'string', 'jsonPath': '.status.conditions[?(@.type=="Ready")].status'},
        {'name': 'C', 'type': 'integer', 'jsonPath': '.spec.list[1]'},
        {'name': 'M', 'type': 'string', 'jsonPath': r'.metadata.labels.example\.com/x'},
    ])  # fmt: skip
    obj = {'status': {'conditions': [{'type': 'A', 'status': 'x'}, {'type': 'Ready', 'status': 'True'}]},
           'spec': {'list': [1, 2]}, 'metadata': {}}  # fmt: skip
    now = env.clock.wall()
    assert [c.value(obj, now) for c in (ready, count, missing)] == ['True', 2, None]  # type: ignore[operator]
    steps = parse_path(r'.metadata.labels.example\.com/x')
    assert steps is not None
    assert results(steps, {'metadata': {'labels': {'example.com/x': 'y'}}}) == ['y']
