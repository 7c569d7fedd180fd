"""What holds for each kind alike: whatever the schema lets through, its rules answer and never break."""

import copy
import random
from datetime import UTC, datetime

import pytest

from kapi.kinds import GOVERNING, KINDS, VIRTUAL
from kapi.schemas import schema_for
from kapi.schemas.schema import Findings
from kcore.meta.schema import Node

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STORED = (*KINDS, *GOVERNING)
ids = [str(k.resource) for k in STORED]
_TEXTS = [
    '',
    'a',
    'web',
    'A_b',
    'x/y',
    '10.0.0.1',
    'Always',
    'Never',
    '100%',
    'ClusterIP',
    'None',
    'RollingUpdate',
    '-',
    'é',
]
_SCALARS = {
    'string': _TEXTS,
    'int32': [-1, 0, 1, 80, 2**31 - 1],
    'int64': [-1, 0, 1, 30, 2**40],
    'number': [0, 1.5],
    'boolean': [True, False],
    'quantity': ['1', '100m', '1Gi', '-1', '0', 2],
    'int-or-string': [0, 80, 'http', '25%', ''],
    'time': ['2026-01-01T00:00:00Z'],
    'micro-time': ['2026-01-01T00:00:00.000000Z'],
    'bytes': ['', 'YQ=='],
    'any': [{}, {'a': 1}, 'x', 1],
}
_MAX_DEPTH = 9
OBJECTS = 60


def value_of(node: Node, rng: random.Random, depth: int = 0):
    """A random value that `node` allows, few fields at a time."""
    if node.type == 'object':
        names = list(node.fields) if depth <= _MAX_DEPTH else []
        chosen = set(rng.sample(names, min(len(names), rng.randint(0, 5))))
        chosen |= {n for n in ('spec', 'template', 'containers') if n in names and rng.random() < 0.8}
        return {n: value_of(node.fields[n], rng, depth + 1) for n in names if n in chosen}
    if node.type == 'map':
        keys = rng.sample(['a', 'cpu', 'memory', '', 'x/y'], rng.randint(0, 2))
        return {k: value_of(node.items, rng, depth + 1) for k in keys}
    if node.type == 'array':
        return [value_of(node.items, rng, depth + 1) for _ in range(rng.randint(0, 2))]
    return copy.deepcopy(rng.choice(_SCALARS[node.type]))


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
