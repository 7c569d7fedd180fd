"""kubectl's JSONPath templates, the part that people use.

`{.items[*].metadata.name}`, `{range .items[*]}{.metadata.name}{"\\n"}{end}`, indexes, slices, `['a.b']`, `a\\.b`,
`..name`, filters `[?(@.type=="Ready")]`, literals in quotes, text outside braces.
Source: kubernetes.io/docs/reference/kubectl/jsonpath.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kctl.verbs.lib.errors import CliError

NODES_MAX = 1_000
"""Expressions in one template."""

_STEP = re.compile(
    r"""(?P<deep>\.\.)?\.?(?:(?P<name>(?:\\.|[\w$@-])+)|(?P<star>\*)|\[(?P<bracket>(?:'[^']*'|"[^"]*"|[^\]\[]|\[[^\]]*\])*)\])"""
)
_FILTER = re.compile(r'\?\(\s*(?P<left>@[^=!<>]*?)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<right>.+?))?\s*\)\Z')
_SLICE = re.compile(r'(-?\d*):(-?\d*)(?::(-?\d+))?\Z')


@dataclass(slots=True)
class Loop:
    path: str
    body: list[Loop | str | tuple[str]] = field(default_factory=list)
    """Nested loops, literal text, one-tuples of paths."""


def render(template: str, obj: Any) -> str:
    """Raises CliError on a template that is not understood."""
    root = Loop('')
    stack = [root]
    for is_text, part in _parts(template):
        if is_text:
            stack[-1].body.append(part)
        elif part.startswith('range'):
            loop = Loop(part[5:].strip())
            stack[-1].body.append(loop)
            stack.append(loop)
        elif part == 'end':
            if len(stack) == 1:
                raise CliError('error parsing jsonpath: not in range, nothing to end')
            stack.pop()
        else:
            stack[-1].body.append((part,))
    if len(stack) > 1:
        raise CliError('error parsing jsonpath: unclosed range, {end} is missing')
    return ''.join(_run(root.body, obj, obj))


def _parts(template: str) -> Iterator[tuple[bool, str]]:
    """(is literal text, content): `a{.b}` → text a, path .b"""
    rest, count = template, 0
    while rest:
        count += 1
        if count > NODES_MAX:
            raise CliError(f'error parsing jsonpath: more than {NODES_MAX} expressions')
        before, brace, rest = rest.partition('{')
        if before:
            yield True, before
        if not brace:
            return
        inside, rest = _until_brace(rest, template)
        if len(inside) > 1 and inside[0] == inside[-1] and inside[0] in '"\'':
            yield True, _unquote(inside)
        else:
            yield False, inside


def _until_brace(text: str, template: str) -> tuple[str, str]:
    quote = ''
    for i, c in enumerate(text):
        if quote:
            quote = '' if c == quote and text[i - 1] != '\\' else quote
        elif c in '"\'':
            quote = c
        elif c == '}':
            return text[:i].strip(), text[i + 1 :]
    raise CliError(f'error parsing jsonpath {template}, unclosed action')


def _unquote(text: str) -> str:
    try:
        return str(json.loads('"' + text[1:-1].replace('\\"', '"').replace('"', '\\"') + '"'))
    except ValueError:
        return text[1:-1]


def _run(body: Iterable[Loop | str | tuple[str]], root: Any, here: Any) -> Iterator[str]:
    for node in body:
        if isinstance(node, str):
            yield node
        elif isinstance(node, Loop):
            for item in find(node.path, root, here):
                yield from _run(node.body, root, item)
        else:
            yield ' '.join(_text(v) for v in find(node[0], root, here))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return '' if value is None else json.dumps(value, separators=(',', ':'), ensure_ascii=False)


def find(path: str, root: Any, here: Any = None) -> list[Any]:
    """All values at a path; a missing field yields nothing. Raises CliError."""
    text = path.strip()
    values = [root if here is None or text.startswith('$') else here]
    text = text.lstrip('$@')
    at = 0
    while at < len(text):
        if text[at:] == '.':
            break
        step = _STEP.match(text, at)
        if step is None or step.end() == at:
            raise CliError(f'error parsing jsonpath {path}, unrecognized character at {text[at:]!r}')
        at = step.end()
        if step['deep']:
            values = [d for v in values for d in _descendants(v)]
        values = [found for v in values for found in _step(v, step, root)]
    return values


def _descendants(value: Any) -> Iterator[Any]:
    yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _descendants(child)


def _step(value: Any, step: re.Match[str], root: Any) -> list[Any]:
    if step['name'] is not None:
        return _member(value, re.sub(r'\\(.)', r'\1', step['name']))
    bracket = '*' if step['star'] else step['bracket'].strip()
    if bracket == '*':
        return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
    if bracket[:1] in ('"', "'"):
        return _member(value, bracket[1:-1])
    if bracket.startswith('?'):
        items = value if isinstance(value, list) else [value]
        return [v for v in items if _holds(bracket, root, v)]
    return _indexed(value, bracket)


def _member(value: Any, name: str) -> list[Any]:
    return [value[name]] if isinstance(value, dict) and name in value else []


def _indexed(value: Any, bracket: str) -> list[Any]:
    if not isinstance(value, list):
        return []
    cut = _SLICE.match(bracket)
    if cut:
        return value[slice(*(int(g) if g else None for g in cut.groups()))]
    try:
        wanted = [int(i) for i in bracket.split(',')]
    except ValueError:
        raise CliError(f'error parsing jsonpath: invalid array index {bracket}') from None
    return [value[i] for i in wanted if -len(value) <= i < len(value)]


def _holds(bracket: str, root: Any, item: Any) -> bool:
    parsed = _FILTER.match(bracket)
    if parsed is None:
        raise CliError(f'error parsing jsonpath: unrecognized filter {bracket}')
    left = find(parsed['left'], root, item)
    if not parsed['op']:
        return bool(left)
    if not left:
        return parsed['op'] == '!='
    right_text = parsed['right'].strip()
    if right_text[:1] in ('@', '$'):
        right = (find(right_text, root, item) or [None])[0]
    else:
        try:
            right = json.loads(right_text)
        except ValueError:
            right = right_text.strip('\'"')
    return _compare(left[0], parsed['op'], right)


def _compare(left: Any, op: str, right: Any) -> bool:
    match op:
        case '==':
            return bool(left == right)
        case '!=':
            return bool(left != right)
        case _ if type(left) is not type(right) and not (
            isinstance(left, int | float) and isinstance(right, int | float)
        ):
            return False
        case '<':
            return bool(left < right)
        case '>':
            return bool(left > right)
        case '<=':
            return bool(left <= right)
        case _:
            return bool(left >= right)
