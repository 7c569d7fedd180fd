"""Label and field selectors: parsed once, matched often, printed in Kubernetes' canonical form.

A requirement that is negative (`!=`, `notin`, `!key`) also matches objects without the key. Requirements are joined
by "and". Sources: apimachinery/pkg/labels/selector.go, pkg/fields/selector.go (grammar and error texts).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kcore.meta import names

LabelOp = Literal['in', 'notin', '=', '==', '!=', 'exists', '!', 'gt', 'lt']
FieldOp = Literal['=', '!=']

_TOKENS = re.compile(r'\s*(?:(==|!=|[=!(),><])|([^\s=!(),><]+))')
_SET_WORDS = ('in', 'notin')
_END = ''


class SelectorError(ValueError):
    """The selector text cannot be understood, or one of its keys or values is not allowed."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label."""

    key: str
    op: LabelOp
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.op:
            case '=' | '==' | 'in':
                return value is not None and value in self.values
            case '!=' | 'notin':
                return value is None or value not in self.values
            case 'exists':
                return value is not None
            case '!':
                return value is None
            case _:
                return value is not None and _compare(value, self.op, next(iter(self.values)))

    def __str__(self) -> str:
        match self.op:
            case 'exists':
                return self.key
            case '!':
                return f'!{self.key}'
            case 'in' | 'notin':
                return f'{self.key} {self.op} ({",".join(sorted(self.values))})'
            case 'gt' | 'lt':
                return f'{self.key}{">" if self.op == "gt" else "<"}{next(iter(self.values))}'
            case _:
                return f'{self.key}{self.op}{next(iter(self.values))}'


def _compare(value: str, op: str, bound: str) -> bool:
    try:
        left, right = int(value), int(bound)
    except ValueError:
        return False
    return left > right if op == 'gt' else left < right


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Requirements that must all hold; with `nothing` it matches no object at all."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        if self.nothing:
            return False
        if not self.requirements:
            return True
        present = labels or {}
        return all(r.matches(present) for r in self.requirements)

    @property
    def empty(self) -> bool:
        """Whether it matches everything."""
        return not self.requirements and not self.nothing

    def __str__(self) -> str:
        return ','.join(str(r) for r in self.requirements)


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)


def parse_label_selector(text: str) -> LabelSelector:
    """`app=web,tier in (a,b),!legacy`; empty text matches everything. Raises SelectorError with upstream's text."""
    if not text or not text.strip():
        return EVERYTHING
    return LabelSelector(tuple(sorted(_Parser(text).requirements(), key=lambda r: r.key)))


class _Parser:
    """Recursive descent over the token list; a word is a symbol, an operator word or an identifier by position."""

    def __init__(self, text: str) -> None:
        self._tokens = [symbol or word for symbol, word in _TOKENS.findall(text)]
        self._at = 0

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _next(self) -> str:
        tok = self._peek()
        self._at += 1
        return tok

    def requirements(self) -> Iterator[Requirement]:
        while (tok := self._peek()) != _END:
            if tok != '!' and not _is_word(tok):
                raise SelectorError(f"found '{tok}', expected: !, identifier, or 'end of string'")
            try:
                yield self._requirement()
            except SelectorError as error:
                raise SelectorError(f'unable to parse requirement: {error}') from None
            tok = self._next()
            if tok == _END:
                return
            if tok != ',':
                raise SelectorError(f"found '{tok}', expected: ',' or 'end of string'")
            if (after := self._peek()) != '!' and not _is_word(after):
                raise SelectorError(f"found '{after}', expected: identifier after ','")

    def _requirement(self) -> Requirement:
        if self._peek() == '!':
            self._next()
            return new_requirement(self._identifier(), '!', ())
        key = self._identifier()
        if self._peek() in {_END, ','}:
            return new_requirement(key, 'exists', ())
        op = self._next()
        match op:
            case '=' | '==' | '!=':
                return new_requirement(key, op, (self._exact_value(),))
            case '>' | '<':
                return new_requirement(key, 'gt' if op == '>' else 'lt', (self._exact_value(),))
            case 'in' | 'notin':
                return new_requirement(key, op, self._values())
        raise SelectorError(f"found '{op}', expected: in, notin, =, ==, !=, gt, lt")

    def _identifier(self) -> str:
        tok = self._next()
        if not _is_word(tok):
            raise SelectorError(f"found '{tok}', expected: identifier")
        if complaints := names.label_key(tok):
            raise SelectorError(f'key: Invalid value: "{tok}": {"; ".join(complaints)}')
        return tok

    def _exact_value(self) -> str:
        if self._peek() in {_END, ','}:
            return ''
        tok = self._next()
        if not _is_word(tok):
            raise SelectorError(f"found '{tok}', expected: identifier")
        return tok

    def _values(self) -> tuple[str, ...]:
        if (tok := self._next()) != '(':
            raise SelectorError(f"found '{tok}', expected: '('")
        values: list[str] = []
        expect_value = True
        while (tok := self._next()) != ')':
            if tok == ',':
                if expect_value:
                    values.append('')
                expect_value = True
            elif _is_word(tok) and expect_value:
                values.append(tok)
                expect_value = False
            else:
                raise SelectorError(f"found '{tok}', expected: ',', or ')'")
        if expect_value and values:
            values.append('')
        return tuple(values) or ('',)


def _is_word(tok: str) -> bool:
    return bool(tok) and tok[0] not in '=!(),><'


def new_requirement(key: str, op: LabelOp, values: Sequence[str]) -> Requirement:
    """A checked requirement. Raises SelectorError."""
    if complaints := names.label_key(key):
        raise SelectorError(f'key: Invalid value: "{key}": {"; ".join(complaints)}')
    if op in _SET_WORDS and not values:
        raise SelectorError("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")
    for i, value in enumerate(values):
        if op in {'gt', 'lt'}:
            if not value.lstrip('+-').isdecimal():
                raise SelectorError(
                    f"values[{i}]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer"
                )
        elif complaints := names.label_value(value):
            raise SelectorError(f'values[{i}][{key}]: Invalid value: "{value}": {"; ".join(complaints)}')
    return Requirement(key, op, frozenset(values))


_EXPRESSION_OPS: Mapping[str, LabelOp] = {'In': 'in', 'NotIn': 'notin', 'Exists': 'exists', 'DoesNotExist': '!'}


def from_label_selector(selector: Mapping[str, Any] | None) -> LabelSelector:
    """A LabelSelector object (`matchLabels`, `matchExpressions`). None matches nothing, `{}` everything.

    Raises SelectorError: unknown operator, missing values, bad syntax.
    """
    if selector is None:
        return NOTHING
    found = [new_requirement(k, '=', (v,)) for k, v in (selector.get('matchLabels') or {}).items()]
    for expression in selector.get('matchExpressions') or ():
        op = _EXPRESSION_OPS.get(expression.get('operator', ''))
        if op is None:
            raise SelectorError(f'"{expression.get("operator", "")}" is not a valid label selector operator')
        found.append(new_requirement(expression.get('key', ''), op, expression.get('values') or ()))
    return LabelSelector(tuple(sorted(found, key=lambda r: r.key)))


def go_selector(selector: Mapping[str, Any] | None) -> str:
    """A LabelSelector as messages of Kubernetes show it: the way Go prints the structure."""
    if selector is None:
        return 'nil'
    labels = selector.get('matchLabels')
    shown = ''.join(f'{k}: {labels[k]},' for k in sorted(labels)) if labels else ''
    rules = ''.join(
        f'LabelSelectorRequirement{{Key:{r.get("key")},Operator:{r.get("operator")},'
        f'Values:[{" ".join(r.get("values") or ())}],}},'
        for r in selector.get('matchExpressions') or ()
    )
    return (
        f'&LabelSelector{{MatchLabels:map[string]string{{{shown}}},'
        f'MatchExpressions:[]LabelSelectorRequirement{{{rules}}},}}'
    )


def from_labels(labels: Mapping[str, str] | None) -> LabelSelector:
    """A plain map of labels, as in a Service or ReplicationController; None or empty matches nothing."""
    if not labels:
        return NOTHING
    return LabelSelector(tuple(Requirement(k, '=', frozenset((v,))) for k, v in sorted(labels.items())))


def format_selector(selector: Mapping[str, Any] | None) -> str:
    """As printed in a table: `<none>` when empty, `<error>` when broken."""
    try:
        return str(from_label_selector(selector)) or '<none>'
    except SelectorError:
        return '<error>'


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    field: str
    op: FieldOp
    value: str

    def __str__(self) -> str:
        escaped = self.value.replace('\\', '\\\\').replace(',', '\\,').replace('=', '\\=')
        return f'{self.field}{self.op}{escaped}'


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Equalities on named fields, joined by "and"; which names exist is the kind's business."""

    requirements: tuple[FieldRequirement, ...] = ()

    def matches(self, get: Callable[[str], str]) -> bool:
        """`get` returns the field's text, empty when absent."""
        return all((get(r.field) == r.value) == (r.op == '=') for r in self.requirements)

    @property
    def empty(self) -> bool:
        return not self.requirements

    def exact(self, field: str) -> str | None:
        """The value that `field` must have, if the selector demands one."""
        return next((r.value for r in self.requirements if r.field == field and r.op == '='), None)

    def __str__(self) -> str:
        return ','.join(str(r) for r in self.requirements)


_TERM = re.compile(r'(?:[^,\\]|\\.?)+', re.DOTALL)
_FIELD_OP = re.compile(r'(?<!\\)(!=|==|=)')


def parse_field_selector(text: str) -> FieldSelector:
    r"""`metadata.name=x,status.phase!=Running`; `\,`, `\=` and `\\` are escapes. Raises SelectorError."""
    found: list[FieldRequirement] = []
    for term in _TERM.findall(text):
        split = _FIELD_OP.search(term)
        if split is None:
            raise SelectorError(f"invalid selector: '{text}'; can't understand '{term}'")
        value = _unescape(term[split.end() :])
        found.append(FieldRequirement(term[: split.start()].strip(), '!=' if split.group() == '!=' else '=', value))
    return FieldSelector(tuple(found))


def _unescape(value: str) -> str:
    out: list[str] = []
    chars = iter(value)
    for c in chars:
        if c == '\\':
            following = next(chars, '')
            if following not in {',', '=', '\\'}:
                raise SelectorError(f'invalid field selector: invalid escape sequence: \\{following}')
            out.append(following)
        elif c in {',', '='}:
            raise SelectorError(f'invalid field selector: unescaped character in value: {c}')
        else:
            out.append(c)
    return ''.join(out)
