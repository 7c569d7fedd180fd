"""A parser of CEL expressions, for type checks and estimates of cost: the evaluator shows no tree of its own.

Only what the evaluator compiled comes here, so mistakes of syntax are not told well. A node knows its column, counted
from 0, where cel-go puts errors: an operator's own, the dot of a field, the parenthesis of a call.
Source: the CEL language definition (grammar).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    'literal', 'name', 'select', 'has', 'call', 'method', 'index', 'list', 'map', 'operator', 'choice', 'loop'
]
MACROS = frozenset({'all', 'exists', 'exists_one', 'existsOne', 'map', 'filter'})
DEPTH_MAX = 200
_TOKEN = re.compile(
    r"""(?P<space>(?:\s|//[^\n]*)+)
      | (?P<text>[rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
      | (?P<double>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+)
      | (?P<uint>(?:0x[0-9a-fA-F]+|\d+)[uU])
      | (?P<int>0x[0-9a-fA-F]+|\d+)
      | (?P<name>`[^`]+`|[A-Za-z_]\w*)
      | (?P<op>&&|\|\||[=!<>]=|[-+*/%!<>?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_BINARY = (('||',), ('&&',), ('==', '!=', '<', '<=', '>', '>=', 'in'), ('+', '-'), ('*', '/', '%'))
"""Loosest first."""
_LOGICAL = 2
"""So many of them only join truths."""
_LITERALS = {'true': 'bool', 'false': 'bool', 'null': 'null_type'}


class NotParsed(ValueError):
    """Not an expression that this parser knows."""


class TooDeep(NotParsed):
    """Nested, or chained, more often than anybody writes and than the walks over the tree can bear."""


@dataclass(frozen=True, slots=True)
class Expr:
    """`word` is a name, a field, an operator, or a literal's type; `parts` are the operands, a receiver first."""

    kind: Kind
    column: int
    word: str = ''
    parts: tuple[Expr, ...] = ()
    bound: str = ''
    """The variable of a loop."""
    text: str = ''
    """A literal as it is written."""


class _Tokens:
    def __init__(self, text: str) -> None:
        self.found: list[tuple[str, str, int]] = []
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise NotParsed(f'column {at + 1}')
            if match.lastgroup != 'space':
                self.found.append((str(match.lastgroup), match[0], at))
            at = match.end()
        self.found.append(('end', '', len(text)))
        self.at = 0
        self.depth = 0

    @property
    def next(self) -> tuple[str, str, int]:
        return self.found[self.at]

    def take(self, *words: str) -> int | None:
        """The column of the next token if it is one of these, which is then passed."""
        kind, word, column = self.next
        if word in words and kind in {'op', 'name'}:
            self.at += 1
            return column
        return None

    def need(self, word: str) -> int:
        column = self.take(word)
        if column is None:
            raise NotParsed(f'column {self.next[2] + 1}: {word} expected')
        return column

    def name(self) -> str:
        kind, word, column = self.next
        if kind != 'name':
            raise NotParsed(f'column {column + 1}: a name expected')
        self.at += 1
        return word.strip('`')


def parse(text: str) -> Expr:
    """Raises NotParsed, TooDeep."""
    tokens = _Tokens(text)
    try:
        found = _choice(tokens)
    except RecursionError:
        raise TooDeep('nested too deeply') from None
    if tokens.next[0] != 'end':
        raise NotParsed(f'column {tokens.next[2] + 1}')
    return found


def renamed(text: str, names: Mapping[str, str]) -> str:
    """With calls of these functions, though not methods, under other names. Raises NotParsed."""
    found = _Tokens(text).found
    parts, at = [], 0
    for before, (kind, word, column), after in zip([('', '', 0), *found], found, found[1:], strict=False):
        if kind == 'name' and word in names and after[1] == '(' and before[1] != '.':
            parts += [text[at:column], names[word]]
            at = column + len(word)
    return ''.join([*parts, text[at:]])


def _choice(t: _Tokens) -> Expr:
    t.depth += 1
    if t.depth > DEPTH_MAX:
        raise TooDeep('nested too deeply')
    found = _binary(t, 0)
    if (column := t.take('?')) is not None:
        good = _binary(t, 0)
        t.need(':')
        found = Expr('choice', column, '_?_:_', (found, good, _choice(t)))
    t.depth -= 1
    return found


def _binary(t: _Tokens, level: int) -> Expr:
    if level == len(_BINARY):
        return _unary(t)
    operands = [_binary(t, level + 1)]
    between: list[tuple[str, int]] = []
    while True:
        word = t.next[1]
        column = t.take(*_BINARY[level])
        if column is None:
            break
        between.append((word, column))
        operands.append(_binary(t, level + 1))
    if level < _LOGICAL:
        return _balanced(operands, between)
    left = operands[0]
    for (word, column), right in zip(between, operands[1:], strict=True):
        left = Expr('operator', column, word, (left, right))
    return left


def _balanced(operands: list[Expr], between: list[tuple[str, int]]) -> Expr:
    """A long chain of `&&` or `||` as a flat tree, as cel-go builds it: the order of evaluation is the same."""
    if len(operands) == 1:
        return operands[0]
    half = len(operands) // 2
    word, column = between[half - 1]
    parts = (_balanced(operands[:half], between[: half - 1]), _balanced(operands[half:], between[half:]))
    return Expr('operator', column, word, parts)


def _unary(t: _Tokens) -> Expr:
    for word in ('!', '-'):
        columns: list[int] = []
        while (column := t.take(word)) is not None:
            columns.append(column)
        if columns:
            operand = _unary(t)  # of the other sign, or none
            return Expr('operator', columns[0], word, (operand,)) if len(columns) % 2 else operand
    return _member(t, _primary(t))


def _member(t: _Tokens, found: Expr) -> Expr:
    while True:
        if (dot := t.take('.')) is not None:
            name = t.name()
            if (paren := t.take('(')) is None:
                found = Expr('select', dot, name, (found,))
            else:
                found = _method(found, name, paren, _arguments(t, ')'))
        elif (column := t.take('[')) is not None:
            index = _choice(t)
            t.need(']')
            found = Expr('index', column, '_[_]', (found, index))
        else:
            return found


def _method(receiver: Expr, name: str, column: int, given: tuple[Expr, ...]) -> Expr:
    if name in MACROS and len(given) >= 2 and given[0].kind == 'name':
        return Expr('loop', column, name, (receiver, *given[1:]), given[0].word)
    return Expr('method', column, name, (receiver, *given))


def _arguments(t: _Tokens, end: str) -> tuple[Expr, ...]:
    found: list[Expr] = []
    while t.take(end) is None:
        found.append(_choice(t))
        if t.take(',') is None:
            t.need(end)
            break
    return tuple(found)


def _primary(t: _Tokens) -> Expr:
    kind, word, column = t.next
    if t.take('(') is not None:
        found = _choice(t)
        t.need(')')
        return found
    if t.take('[') is not None:
        return Expr('list', column, '', _arguments(t, ']'))
    if t.take('{') is not None:
        return _map(t, column)
    if kind in {'int', 'uint', 'double'}:
        t.at += 1
        return Expr('literal', column, kind, text=word)
    if kind == 'text':
        t.at += 1
        prefix = word[: min(word.find(q) for q in '"\'' if q in word)]
        return Expr('literal', column, 'bytes' if 'b' in prefix.lower() else 'string', text=word)
    t.take('.')
    name = t.name()
    if name in _LITERALS:
        return Expr('literal', column, _LITERALS[name])
    if (paren := t.take('(')) is None:
        return Expr('name', column, name)
    given = _arguments(t, ')')
    if name == 'has' and len(given) == 1 and given[0].kind == 'select':
        return Expr('has', given[0].column, given[0].word, given[0].parts)
    return Expr('call', paren, name, given)


def _map(t: _Tokens, column: int) -> Expr:
    parts: list[Expr] = []
    while t.take('}') is None:
        parts.append(_choice(t))
        t.need(':')
        parts.append(_choice(t))
        if t.take(',') is None:
            t.need('}')
            break
    return Expr('map', column, '', tuple(parts))
