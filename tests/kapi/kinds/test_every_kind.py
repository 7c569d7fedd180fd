"""What holds for each kind alike: whatever the schema lets through, its rules answer and never break."""

import copy
import random
from datetime import UTC, datetime

import pytest

from kapi.kinds import GOVERNING, KINDS, VIRTUAL
from kapi.schemas import schema_for
from kapi.schemas.schema import Findings
from tests.kapi.objects import value_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STORED = (*KINDS, *GOVERNING)
ids = [str(k.resource) for k in STORED]
OBJECTS = 60


@pytest.mark.parametrize('kind', STORED, ids=ids)
def test_no_object_that_the_schema_allows_breaks_a_kind(kind):
    rng = random.Random(kind.resource.plural)
    for _ in range(OBJECTS):
        check_one(kind, rng)


def check_one(kind, rng):
    schema = schema_for(kind.resource)
    obj = value_of(schema.root, rng)
    obj['metadata'] = {**obj.get('metadata', {}), 'name': 'x', 'namespace': 'n', 'uid': 'u'}
    assert schema.inspect(obj) == Findings()
    schema.drop_nulls(obj)
    assert schema.is_valid(obj)
    other = value_of(schema.root, rng)
    other['metadata'] = dict(obj['metadata'])
    strategy = kind.strategy
    for one in (obj, other):
        strategy.default(one)
    again = copy.deepcopy(obj)
    strategy.default(again)
    assert again == obj, 'defaulting must be idempotent'
    assert schema.inspect(obj) == Findings()
    strategy.prepare(other, None)
    strategy.prepare(obj, other)
    for found in (strategy.validate(obj, None), strategy.validate(obj, other), strategy.validate_status(obj, other)):
        for broken in found:
            assert broken.message
    strategy.prepare_status(obj, other)
    list(strategy.warnings(obj, None))
    assert strategy.grace_period_s(obj, None) >= 0
    for column in kind.columns:
        if callable(column.value):
            assert isinstance(column.value(obj, NOW), str | int | bool)


@pytest.mark.parametrize('kind', STORED, ids=ids)
def test_columns_are_printable_for_the_barest_object(kind):
    for column in kind.columns:
        if callable(column.value):
            column.value({'metadata': {'name': 'x'}}, NOW)
        assert column.description


def test_names_are_unique_and_well_formed():
    everything = (*STORED, *VIRTUAL)
    assert len({(k.resource.group, k.resource.version, k.resource.plural) for k in everything}) == len(everything)
    for kind in everything:
        assert kind.resource.plural == kind.resource.plural.lower()
        assert schema_for(kind.resource)
    shorts = [s for k in everything if k.alias is None for s in k.short]
    assert len(shorts) == len(set(shorts))


def test_the_category_all_is_upstreams():
    assert {k.resource.plural for k in STORED if 'all' in k.categories} == {
        'pods',
        'replicationcontrollers',
        'services',
        'daemonsets',
        'deployments',
        'replicasets',
        'statefulsets',
        'horizontalpodautoscalers',
        'cronjobs',
        'jobs',
    }


def test_every_kind_of_the_first_two_tiers_is_declared():
    assert len(STORED) >= 49
