"""Objects made from the schemas: random ones, and ones with every field set."""

import copy
import random
from typing import Any

from kcore.meta.schema import Node

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


_FULL = {
    'string': 'text', 'int32': 7, 'int64': 2**40, 'number': 1.5, 'boolean': True, 'quantity': '100m',
    'int-or-string': '25%', 'time': '2026-01-02T03:04:05Z', 'micro-time': '2026-01-02T03:04:05.000006Z',
    'bytes': 'YQ==', 'any': {'a': [1, 'x', {'b': None}]},
}  # fmt: skip


def full_of(node: Node, inside: tuple[str, ...] = ()) -> Any:
    """A value with every field of `node` set, each definition entered once on the way down."""
    match node.type:
        case 'object':
            within = (*inside, node.name) if node.name else inside
            entered = {k: c for k, c in node.fields.items() if not _again(c, within)}
            return {key: full_of(child, within) for key, child in entered.items()}
        case 'map':
            return {'a': full_of(node.items, inside)} if node.items else {'a': 'b'}
        case 'array':
            return [full_of(node.items, inside)] if node.items else ['a']
    return copy.deepcopy(_FULL[node.type])


def _again(node: Node, inside: tuple[str, ...]) -> bool:
    """Whether a definition comes again below itself."""
    while node.items is not None:
        node = node.items
    return node.type == 'object' and node.name in inside
