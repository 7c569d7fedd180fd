"""What is wrong with an expression's types, in cel-go's words: unknown fields, names and functions, wrong operands.

A modest checker: what it does not know (most functions' results, untyped JSON) is `dyn`, and nothing is wrong with
that. So it may miss a mistake, and must not invent one. Source: cel-go checker/checker.go, apiserver pkg/cel/openapi.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kapi.crd.celengine import engine
from kapi.crd.celparse import Expr, NotParsed, parse
from kapi.crd.rules import NATIVE, escape
from kcore.meta.schema import Node


@dataclass(frozen=True)
class Type:
    """`name` as cel-go shows it; `of`: a list's element, or a map's key and value; `node`: an object's fields."""

    name: str
    of: tuple[Type, ...] = ()
    node: Node | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f'{self.name}({", ".join(map(str, self.of))})' if self.of else self.name


DYN, BOOL, INT, UINT, DOUBLE, STRING, BYTES, NULL, TIMESTAMP, DURATION = map(
    Type, ('dyn', 'bool', 'int', 'uint', 'double', 'string', 'bytes', 'null_type', 'timestamp', 'duration')
)
NUMBERS = frozenset({INT, UINT, DOUBLE})
ORDERED = frozenset({BOOL, STRING, BYTES, TIMESTAMP, DURATION})
_LITERALS = {t.name: t for t in (BOOL, INT, UINT, DOUBLE, STRING, BYTES, NULL)}
_SCALARS: Mapping[str, Type] = {
    'string': STRING, 'int32': INT, 'int64': INT, 'number': DOUBLE, 'boolean': BOOL, 'time': TIMESTAMP,
    'micro-time': TIMESTAMP, 'bytes': BYTES,
}  # fmt: skip
"""Quantities and int-or-string are `dyn`."""
_TEXT = frozenset({'startsWith', 'endsWith', 'contains', 'matches'})
_CONVERSIONS: Mapping[str, Type] = {
    'int': INT, 'uint': UINT, 'double': DOUBLE, 'string': STRING, 'bool': BOOL, 'bytes': BYTES, 'size': INT,
    'timestamp': TIMESTAMP, 'duration': DURATION,
}  # fmt: skip
_TYPE_NAMES = frozenset({*_CONVERSIONS, 'list', 'map', 'null_type', 'type', 'dyn'})
AUTHORIZER_FUNCTIONS = frozenset(
    (
        'group', 'resource', 'path', 'serviceAccount', 'subresource', 'namespace', 'name', 'fieldSelector',
        'labelSelector', 'check', 'allowed', 'reason', 'errored', 'error',
    )
)  # fmt: skip
NAMESPACES = frozenset({'sets', 'math', 'lists', 'strings', 'base64', 'optional', 'format'})
"""What stands before the dot of a function that is no method."""
EXTRA_FUNCTIONS = frozenset({'has', 'format', 'optMap', 'optFlatMap', *AUTHORIZER_FUNCTIONS})


def type_of(node: Node | None) -> Type:
    if node is None:
        return DYN
    match node.type:
        case 'object' if node.fields and not node.preserve_unknown:
            return Type('object', node=node)
        case 'array':
            return Type('list', (type_of_element(node),))
        case 'map':
            return Type('map', (STRING, type_of_element(node)))
    return _SCALARS.get(node.type, DYN)


def type_of_element(node: Node) -> Type:
    return type_of(node.items)


class Checker:
    """The mistakes of one expression. `names` are its variables; `variables` those of the policy's own."""

    def __init__(self, text: str, names: Mapping[str, Type], variables: Mapping[str, Type] | None = None) -> None:
        self._text = text
        self._scopes: list[Mapping[str, Type]] = [names]
        self._variables = variables
        self.mistakes: list[str] = []
        try:
            self.type = self._of(parse(text))
        except (NotParsed, RecursionError):
            self.type = DYN  # the evaluator has its say on syntax

    def _wrong(self, e: Expr, why: str) -> Type:
        line, column = self._text.count('\n', 0, e.column), e.column - (self._text.rfind('\n', 0, e.column) + 1)
        shown = self._text.split('\n')[line]
        self.mistakes.append(f'ERROR: <input>:{line + 1}:{column + 1}: {why}\n | {shown}\n | {"." * column}^')
        return DYN

    def _overload(self, e: Expr, shown: str, given: list[Type]) -> Type:
        return self._wrong(e, f"found no matching overload for '{shown}' applied to '({', '.join(map(str, given))})'")

    def _of(self, e: Expr) -> Type:
        match e.kind:
            case 'literal':
                return _LITERALS[e.word]
            case 'name':
                return self._name(e)
            case 'select':
                return self._select(e)
            case 'has':
                self._select(e)
                return BOOL
            case 'operator':
                return self._operator(e, [self._of(p) for p in e.parts])
            case 'choice':
                return self._choice(e)
            case 'index':
                return self._index(e)
            case 'loop':
                return self._loop(e)
            case 'list':
                return Type('list', (_common([self._of(p) for p in e.parts]),))
            case 'map':
                types = [self._of(p) for p in e.parts]
                return Type('map', (_common(types[::2]), _common(types[1::2])))
        return self._call(e)

    def _name(self, e: Expr) -> Type:
        for scope in reversed(self._scopes):
            if e.word in scope:
                return scope[e.word]
        if e.word in _TYPE_NAMES or e.word in NATIVE or e.word == 'variables':
            return DYN
        return self._wrong(e, f"undeclared reference to '{e.word}' (in container '')")

    def _select(self, e: Expr) -> Type:
        (on,) = e.parts
        if on.kind == 'name' and on.word == 'variables' and self._variables is not None:
            found = self._variables.get(e.word)
            return found if found is not None else self._wrong(e, f"undefined field '{e.word}'")
        kind = self._of(on)
        if kind.node is not None:
            fields = {escape(k): v for k, v in kind.node.fields.items()}
            if e.word in fields:
                return type_of(fields[e.word])
            return self._wrong(e, f"undefined field '{e.word}'")
        if kind.name == 'map':
            return kind.of[1]
        if kind is DYN or kind == DYN:
            return DYN
        return self._wrong(e, f"type '{kind}' does not support field selection")

    def _choice(self, e: Expr) -> Type:
        condition, good, bad = (self._of(p) for p in e.parts)
        if condition not in {BOOL, DYN} or not _fits(good, bad):
            return self._overload(e, e.word, [condition, good, bad])
        return _common([good, bad])

    def _index(self, e: Expr) -> Type:
        on, by = (self._of(p) for p in e.parts)
        if on.name == 'list' and by in {INT, DYN, UINT, DOUBLE}:
            return on.of[0]
        if on.name == 'map' and _fits(on.of[0], by):
            return on.of[1]
        return DYN if on == DYN else self._overload(e, '_[_]', [on, by])

    def _loop(self, e: Expr) -> Type:
        over = self._of(e.parts[0])
        if over.name not in {'list', 'map', 'dyn'}:
            why = f"expression of type '{over}' cannot be range of a comprehension (must be list, map, or dynamic)"
            return self._wrong(e.parts[0], why)
        self._scopes.append({e.bound: over.of[0] if over.of else DYN})
        results = [self._of(p) for p in e.parts[1:]]
        self._scopes.pop()
        if e.word == 'map':
            return Type('list', (results[-1],))
        return over if e.word == 'filter' else BOOL

    def _operator(self, e: Expr, given: list[Type]) -> Type:
        if len(given) == 1:
            good = BOOL if e.word == '!' else given[0]
            fine = given[0] in ({BOOL, DYN} if e.word == '!' else {*NUMBERS, DYN, DURATION})
            return good if fine else self._overload(e, '!_' if e.word == '!' else '-_', given)
        left, right = given
        shown = f'_{e.word}_' if e.word != 'in' else '@in'
        match e.word:
            case '&&' | '||':
                fine, result = {left, right} <= {BOOL, DYN}, BOOL
            case '==' | '!=':
                fine, result = _fits(left, right), BOOL
            case '<' | '<=' | '>' | '>=':
                fine, result = _comparable(left, right), BOOL
            case 'in':
                fine, result = right == DYN or (bool(right.of) and _fits(left, right.of[0])), BOOL
            case _:
                return self._arithmetic(e, shown, left, right)
        return result if fine else self._overload(e, shown, given)

    def _arithmetic(self, e: Expr, shown: str, left: Type, right: Type) -> Type:
        if DYN in {left, right}:
            return DYN
        times = {TIMESTAMP, DURATION}
        if e.word in '+-' and {left, right} <= times and (left, right) != (TIMESTAMP, TIMESTAMP):
            return TIMESTAMP if TIMESTAMP in {left, right} else DURATION
        if e.word == '-' and left == right == TIMESTAMP:
            return DURATION
        joined = e.word == '+' and (left in {STRING, BYTES} or left.name == 'list') and _fits(left, right)
        counted = left == right and left in NUMBERS and not (e.word == '%' and left == DOUBLE)
        return left if joined or counted else self._overload(e, shown, [left, right])

    def _call(self, e: Expr) -> Type:
        name = e.word
        if e.kind == 'method' and e.parts[0].kind == 'name' and e.parts[0].word in NAMESPACES:
            for argument in e.parts[1:]:
                self._of(argument)
            return DYN
        given = [self._of(p) for p in e.parts]
        if name not in NATIVE and name not in engine()[1] and name not in EXTRA_FUNCTIONS:
            return self._wrong(e, f"undeclared reference to '{name}' (in container '')")
        if e.kind == 'method' and name in _TEXT:
            if given[0] not in {STRING, DYN} or (len(given) == 2 and given[1] not in {STRING, DYN}):
                rest = ', '.join(map(str, given[1:]))
                why = f"found no matching overload for '{name}' applied to '{given[0]}.({rest})'"
                return self._wrong(e, why)
            return BOOL
        if name == 'size' and given and given[0] not in {STRING, BYTES, DYN} and given[0].name not in {'list', 'map'}:
            applied = f'{given[0]}.()' if e.kind == 'method' else f'({given[0]})'
            return self._wrong(e, f"found no matching overload for 'size' applied to '{applied}'")
        return _CONVERSIONS.get(name, DYN)


def _common(types: list[Type]) -> Type:
    return types[0] if types and all(t == types[0] and t.node is types[0].node for t in types) else DYN


def _fits(a: Type, b: Type) -> bool:
    """Whether two values may be of one type."""
    if DYN in {a, b} or NULL in {a, b}:
        return True
    return a.name == b.name and all(_fits(x, y) for x, y in zip(a.of, b.of, strict=False))


def _comparable(a: Type, b: Type) -> bool:
    if DYN in {a, b}:
        return True
    return {a, b} <= NUMBERS or (a == b and a in ORDERED)
