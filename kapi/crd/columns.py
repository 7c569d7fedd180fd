"""additionalPrinterColumns: simple JSON paths as cells of the Table.

A path is a chain of `.field`, `[index]`, `[*]`, `['quoted']` and `[?(@.field=="value")]`; of several results the
first is printed. Source: apiextensions-apiserver pkg/registry/customresource/tableconvertor/tableconvertor.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import orjson

from kapi.registry.kind import CellOf, Col, Obj
from kcore.meta.times import age

_STEP = re.compile(
    r"""\.(?P<field>[^.\[\]]+)|\[(?P<index>-?\d+)\]|\[(?P<all>\*)\]|\['(?P<quoted>(?:[^'\\]|\\.)*)'\]
    |\[\?\(\s*@(?P<where>(?:\.[^.\[\]=!<>\s]+)+)\s*(?P<op>==|!=)\s*(?P<value>"[^"]*"|'[^']*'|[\w.-]+)\s*\)\]""",
    re.VERBOSE,
)
_AGE = Col('Age', lambda obj, now: age(obj['metadata'].get('creationTimestamp'), now), 'date',
           description='Time since the object was created.')  # fmt: skip
Step = Callable[[Any], Iterable[Any]]


def parse_path(path: str) -> tuple[Step, ...] | None:
    """The steps of a simple JSON path; None when it is not one."""
    text = path.replace('\\.', '\0')
    steps: list[Step] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            return None
        steps.append(_step(found))
        at = found.end()
    return tuple(steps)


def _step(found: re.Match[str]) -> Step:
    if (name := found['field'] or found['quoted']) is not None:
        key = name.replace('\0', '.')
        return lambda value: (value[key],) if isinstance(value, dict) and key in value else ()
    if found['index'] is not None:
        i = int(found['index'])
        return lambda value: value[i : i + 1 or None] if isinstance(value, list) else ()
    if found['all']:
        return _each
    field, op, wanted = found['where'].lstrip('.').split('.'), found['op'], found['value'].strip('\'"')

    def matching(value: Any) -> Iterator[Any]:
        for item in _each(value):
            inner = item
            for part in field:
                inner = inner.get(part) if isinstance(inner, dict) else None
            if (inner is not None and _shown(inner) == wanted) == (op == '=='):
                yield item

    return matching


def _each(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def results(steps: tuple[Step, ...], obj: Any) -> list[Any]:
    found = [obj]
    for step in steps:
        found = [result for value in found for result in step(value)]
    return found


def cell(steps: tuple[Step, ...], kind: str) -> CellOf:
    """None where the object has no value, or one of the wrong type."""

    def value_of(obj: Obj, now: datetime) -> Any:
        found = results(steps, obj)
        if not found or found[0] is None:
            return None
        value = found[0]
        match kind:
            case 'integer' | 'number':
                number = isinstance(value, int | float) and not isinstance(value, bool)
                return (int(value) if kind == 'integer' else value) if number else None
            case 'boolean':
                return value if isinstance(value, bool) else None
            case 'date':
                return age(value, now) if isinstance(value, str) else None
        if len(found) > 1:
            return ','.join(map(_shown, found))
        return _shown(value)

    return value_of


def columns_of(declared: Any) -> tuple[Col, ...]:
    """The Table of a version; without a declaration just the age."""
    columns = tuple(
        Col(
            c['name'], cell(steps, c['type']), c['type'], c.get('format') or '', int(c.get('priority') or 0),
            c.get('description') or f'Custom resource definition column (in JSONPath format): {c["jsonPath"]}',
        )
        for c in declared or ()
        if (steps := parse_path(c['jsonPath'])) is not None
    )  # fmt: skip
    return columns or (_AGE,)
