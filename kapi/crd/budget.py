"""How much a definition's rules may cost at the worst: each of them, and all together.

Source: apiextensions-apiserver pkg/apis/apiextensions/validation/{validation,cel_validation}.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kapi.crd.cost import ENDLESS, estimate
from kapi.crd.decls import Decl, decl_of
from kapi.crd.rules import RULES_WORD
from kapi.registry.broken import forbidden
from kapi.registry.strategy import Invalid
from kapi.schemas.structural import Props

EXPRESSION_MAX = 10_000_000
SCHEMA_MAX = 100_000_000
"""Of all rules of one version. Units are cel-go's: 1 for an access or a call."""
SHOWN_MAX = 4
"""So many of the dearest expressions are named when the whole is too much."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A part of the schema that has rules."""

    at: str
    rules: list[Props]
    decl: Decl
    times: int
    """How often it may occur in one object."""


def check_costs(props: Props, at: str) -> Iterator[Invalid]:
    """What the rules of a well-formed schema cost too much."""
    found: list[tuple[int, str]] = []
    for place in _places(props, at, times=1, root=True):
        for i, raw in enumerate(place.rules):
            where = f'{place.at}.{RULES_WORD}[{i}]'
            cost = min(estimate(str(raw.get('rule') or ''), place.decl) * place.times, ENDLESS)
            if cost > EXPRESSION_MAX:
                yield _over(f'{where}.rule', 'estimated rule cost', cost, EXPRESSION_MAX)
            found.append((cost, f'{where}.rule'))
            if not raw.get('messageExpression'):
                continue
            cost = estimate(str(raw['messageExpression']), place.decl)
            if cost > EXPRESSION_MAX:
                yield _over(f'{where}.messageExpression', 'estimated messageExpression cost', cost, EXPRESSION_MAX)
            found.append((cost, f'{where}.messageExpression'))
    total = sum(cost for cost, _ in found)
    if total <= SCHEMA_MAX:
        return
    dearest = sorted((f for f in found if f[0] >= SCHEMA_MAX // 100), key=lambda f: -f[0])[:SHOWN_MAX]
    for _, where in dearest:
        yield forbidden(
            where, 'contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema'
        )
    what = f'{RULES_WORD} estimated rule cost total for entire OpenAPIv3 schema'
    yield _over(at, what, total, SCHEMA_MAX)


def _over(field: str, what: str, cost: int, limit: int) -> Invalid:
    factor = cost / limit
    shown = 'more than 100x' if factor > 100 else f'{factor:f}x' if factor < 1.5 else f'{factor:.1f}x'
    advice = 'try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared'  # noqa: E501
    return forbidden(field, f'{what} exceeds budget by factor of {shown} ({advice})')


def _places(props: Props, at: str, *, times: int | None, root: bool = False) -> Iterator[_Place]:
    """`times` None: nothing above limits how often this may occur."""
    rules = props.get(RULES_WORD)
    if rules and (decl := decl_of(props, root=root)) is not None:
        yield _Place(at, rules, decl, decl.times_max if times is None else times)
    for key, below in (props.get('properties') or {}).items():
        yield from _places(below, f'{at}.properties[{key}]', times=times)
    for word, limit in (('additionalProperties', 'maxProperties'), ('items', 'maxItems')):
        if isinstance(props.get(word), dict):
            most = props.get(limit)
            below_times = None if times is None or most is None else min(times * max(most, 0), ENDLESS)
            yield from _places(props[word], f'{at}.{word}', times=below_times)
