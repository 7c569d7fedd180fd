"""What an expression may cost at the worst, as upstream reckons it before it accepts a definition.

The figures decide which definitions exist, so they follow upstream's to the unit, quirks included: a value that was
computed has the size of `self`. Source: cel-go checker/cost.go, apiserver pkg/cel/library/cost.go.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kapi.crd.celparse import Expr, NotParsed, TooDeep, parse
from kapi.crd.decls import DYN, STRING, Decl

ENDLESS = 2**64 - 1
"""Where sums and products stop."""
_LIST_BASE, _MAP_BASE = 10, 30
_TRAVERSE, _REGEX = 0.1, 0.25
"""Per character of a text, and of a pattern."""
_LOOKS_LIKE_TEXT = ('string', 'bytes')
_SCALARS = frozenset({'bool', 'double', 'duration', 'int', 'timestamp', 'uint'})
_ESCAPES = re.compile(r'\\(?:x..|u.{4}|U.{8}|[0-3][0-7]{2}|.)|.', re.DOTALL)
_LIST_SCANS = frozenset({'isSorted', 'sum', 'max', 'min', 'indexOf', 'lastIndexOf'})
_TEXT_SCANS = frozenset({'lowerAscii', 'upperAscii', 'substring', 'trim'})
_SETS = {'contains': 1, 'intersects': 1, 'equivalent': 2}
_RESULTS = {
    'size': 'int', 'int': 'int', 'uint': 'uint', 'double': 'double', 'string': 'string', 'bytes': 'bytes',
    'bool': 'bool', 'timestamp': 'timestamp', 'duration': 'duration', 'isSorted': 'bool', 'indexOf': 'int',
    'lastIndexOf': 'int', 'lowerAscii': 'string', 'upperAscii': 'string', 'substring': 'string', 'trim': 'string',
    'replace': 'string', 'join': 'string', 'find': 'string', 'format': 'string', 'startsWith': 'bool',
    'endsWith': 'bool', 'contains': 'bool', 'matches': 'bool', 'getHost': 'string', 'getHostname': 'string',
    'getPort': 'string', 'getScheme': 'string', 'getEscapedPath': 'string', 'isURL': 'bool', 'isIP': 'bool',
    'isCIDR': 'bool', 'isQuantity': 'bool', 'isSemver': 'bool', 'isInteger': 'bool', 'isGreaterThan': 'bool',
    'isLessThan': 'bool', 'compareTo': 'int', 'asInteger': 'int', 'sign': 'int', 'hasValue': 'bool',
}  # fmt: skip
"""Types of results, where an estimate depends on them; every `get…` of a moment is an int."""


class Size(NamedTuple):
    min: int
    max: int

    def __or__(self, other: tuple[int, int]) -> Size:
        return Size(min(self.min, other[0]), max(self.max, other[1]))

    def plus(self, other: Size) -> Size:
        return Size(_add(self.min, other.min), _add(self.max, other.max))

    def times(self, other: Size) -> Size:
        return Size(_times(self.min, other.min), _times(self.max, other.max))


ONE, UNKNOWN = Size(1, 1), Size(0, ENDLESS)
_LOST = Decl('lost')
"""A path that leads nowhere in the schema."""


@dataclass(frozen=True, slots=True)
class _Value:
    cost: int
    """At the most, of coming by it."""
    type: Decl
    computed: Size | None = None
    path: Decl | None = None
    """Where in the schema it comes from; None for what an expression made."""

    @property
    def size(self) -> Size:
        if self.computed is not None:
            return self.computed
        if self.path is not None and self.path is not _LOST:
            return Size(0, self.path.max)
        return ONE if self.type.kind in _SCALARS else UNKNOWN

    def scan(self, factor: float = _TRAVERSE) -> int:
        return _share(self.size.max, factor)


def _add(*numbers: int) -> int:
    return min(sum(numbers), ENDLESS)


def _times(a: int, b: int) -> int:
    return min(a * b, ENDLESS)


def _share(number: int, factor: float) -> int:
    """Rounded up, in floating point as upstream does."""
    return min(math.ceil(float(number) * factor), ENDLESS)


def estimate(source: str, root: Decl) -> int:
    """The most that an expression over `self` may cost. 0 for what only the evaluator can read."""
    try:
        return _Estimate(root).of(parse(source)).cost
    except (TooDeep, RecursionError):
        return ENDLESS
    except NotParsed:
        return 0


class _Estimate:
    def __init__(self, root: Decl) -> None:
        self._root = root
        self._bound: list[tuple[str, _Value]] = []

    def of(self, e: Expr) -> _Value:
        match e.kind:
            case 'literal':
                return _Value(0, Decl(e.word), _literal_size(e))
            case 'name':
                return self._name(e)
            case 'select':
                return self._select(e)
            case 'has':
                return _Value(self.of(e.parts[0]).cost, Decl('bool'))
            case 'list':
                return self._list(e)
            case 'map':
                parts = [self.of(p) for p in e.parts]
                kind = Decl('map', items=_common(parts[1::2]))
                entries = len(parts) // 2
                return _Value(_add(_MAP_BASE, *(p.cost for p in parts)), kind, Size(entries, entries))
            case 'choice':
                condition, good, bad = (self.of(p) for p in e.parts)
                cost = _add(condition.cost, max(good.cost, bad.cost))
                return _Value(cost, _common([good, bad]), good.size | bad.size)
            case 'index':
                return self._index(e)
            case 'loop':
                return self._loop(e)
            case 'operator':
                return self._operator(e)
        return self._call(e)

    def _name(self, e: Expr) -> _Value:
        for name, value in reversed(self._bound):
            if name == e.word:
                return value
        known = e.word in {'self', 'oldSelf'}
        return _Value(1, self._root if known else DYN, path=self._root)

    def _select(self, e: Expr) -> _Value:
        on = self.of(e.parts[0])
        cost = _add(on.cost, 1) if on.type.kind in {'map', 'object'} else on.cost
        below = on.type.fields.get(e.word) if on.type.kind == 'object' else on.type.items
        return _Value(cost, below or DYN, path=self._step(on, lambda decl: decl.fields.get(e.word)))

    def _step(self, on: _Value, pick: Callable[[Decl], Decl | None]) -> Decl:
        """The path one step on; from a computed value it begins anew."""
        if on.path is None:
            return self._root
        return _LOST if on.path is _LOST else pick(on.path) or _LOST

    def _list(self, e: Expr) -> _Value:
        parts = [self.of(p) for p in e.parts]
        kind = Decl('list', items=_common(parts))
        return _Value(_add(_LIST_BASE, *(p.cost for p in parts)), kind, Size(len(parts), len(parts)))

    def _index(self, e: Expr) -> _Value:
        on, by = (self.of(p) for p in e.parts)
        return _Value(_add(on.cost, by.cost, 1), on.type.items or DYN, path=self._step(on, lambda decl: decl.items))

    def _loop(self, e: Expr) -> _Value:
        """A macro as the loop that it stands for: what each turn costs, and the result's own accesses."""
        over = self.of(e.parts[0])
        if over.type.kind == 'map':
            key = self._step(over, lambda decl: STRING if decl.kind == 'map' else None)
            element = _Value(1, STRING, path=key)
        else:
            element = _Value(1, over.type.items or DYN, path=self._step(over, lambda decl: decl.items))
        self._bound.append((e.bound, element))
        inner = [self.of(p) for p in e.parts[1:]]
        self._bound.pop()
        cost, result = inner[-1].cost, _Value(0, Decl('bool'))
        match e.word:
            case 'all':
                turn, after = _add(cost, 3), 1
            case 'exists':
                turn, after = _add(cost, 4), 1
            case 'exists_one' | 'existsOne':
                turn, after = _add(cost, 2), 2
            case 'filter':
                turn, after = _add(cost, 3 + _LIST_BASE), 1 + _LIST_BASE
                result = _Value(0, Decl('list', items=element.type), over.size)
            case _:
                kept = inner[0].cost if len(inner) == 2 else 0
                turn, after = _add(cost, kept, 2 + _LIST_BASE), 1 + _LIST_BASE
                result = _Value(0, Decl('list', items=inner[-1].type), over.size)
        return _Value(_add(over.cost, _times(over.size.max, turn), after), result.type, result.computed or ONE)

    def _operator(self, e: Expr) -> _Value:
        if e.word == '-' and len(e.parts) == 1 and e.parts[0].kind == 'literal':
            return self.of(e.parts[0])
        given = [self.of(p) for p in e.parts]
        cost = _add(*(v.cost for v in given))
        kinds = {v.type.kind for v in given}
        match e.word:
            case '&&' | '||':
                return _Value(cost, Decl('bool'))
            case '==' | '!=':
                return _Value(_add(cost, _compared(given)), Decl('bool'))
            case '<' | '<=' | '>' | '>=' if kinds & {*_LOOKS_LIKE_TEXT} or kinds == {'dyn'}:
                return _Value(_add(cost, _compared(given)), Decl('bool'))
            case 'in' if given[1].type.kind != 'map':
                return _Value(_add(cost, given[1].size.max), Decl('bool'))
            case '+' if kinds & {*_LOOKS_LIKE_TEXT, 'list'} or kinds == {'dyn'}:
                size = given[0].size.plus(given[1].size)
                own = 1 if 'list' in kinds else _share(size.max, _TRAVERSE)
                kind = given[0].type if given[0].type.kind != 'dyn' else given[1].type
                return _Value(_add(cost, own), kind, size)
            case '+' | '-' | '*' | '/' | '%':
                return _Value(_add(cost, 1), given[0].type if given[0].type.kind in _SCALARS else given[-1].type)
        return _Value(_add(cost, 1), Decl('bool'))

    def _call(self, e: Expr) -> _Value:
        receiver = e.parts[0] if e.kind == 'method' else None
        if receiver is not None and receiver.kind == 'name' and receiver.word == 'sets':
            a, b = (self.of(p) for p in e.parts[1:3])
            own = _add(_share(_times(a.size.max, b.size.max), _SETS.get(e.word, 1)), 1)
            return _Value(_add(a.cost, b.cost, own), Decl('bool'))
        given = [self.of(p) for p in e.parts]
        if e.word == 'dyn' and receiver is None and given:
            return _Value(_add(given[0].cost, 1), DYN, given[0].size)
        target = given[0] if receiver is not None else None
        own, size, kind = _function(e.word, target, given[1:] if target else given, e.parts)
        return _Value(_add(own, *(v.cost for v in given)), kind, size)


def _function(
    name: str, target: _Value | None, given: Sequence[_Value], parts: tuple[Expr, ...]
) -> tuple[int, Size | None, Decl]:
    """A function's own cost, and size and type of its result."""
    result = 'int' if name.startswith('get') and name not in _RESULTS else _RESULTS.get(name, 'dyn')
    kind = Decl(result)
    if target is None:
        if name == 'url' and given:
            return given[0].scan(), given[0].size, kind
        return _conversion(name, given, kind)
    if name in _LIST_SCANS:
        return _list_scan(target), None, kind
    if name in _TEXT_SCANS:
        return target.scan(), target.size, kind
    match name:
        case 'contains' if given:
            return _times(target.scan(), given[0].scan()), None, kind
        case 'startsWith' | 'endsWith' if given:
            return given[0].scan(), None, kind
        case 'matches' | 'find' | 'findAll' if given:
            strings = _share(_add(target.size.max, 1), _TRAVERSE)
            size = None if name == 'matches' else Size(0, target.size.max)
            kind = Decl('list', items=STRING) if name == 'findAll' else kind
            return _times(strings, given[0].scan(_REGEX)), size, kind
        case 'replace' if len(given) >= 2:
            return target.scan(2 * _TRAVERSE), _replaced(target.size, given[0].size, given[1].size), kind
        case 'split':
            limit = int(parts[2].text, 0) if len(parts) > 2 and parts[2].word == 'int' and parts[2].text else None
            size = Size(0, target.size.max if limit is None else limit)
            return target.scan(2 * _TRAVERSE), size, Decl('list', items=STRING)
        case 'join':
            size = _joined(target, given)
            return _share(size.max, _TRAVERSE), size, kind
        case 'format':
            return target.scan(), None, kind
    return 1, None, kind


def _conversion(name: str, given: Sequence[_Value], kind: Decl) -> tuple[int, Size | None, Decl]:
    if name == 'bytes' and given and given[0].type.kind == 'string':
        return given[0].scan(), given[0].size.times(Size(1, 4)), kind
    if name == 'string' and given and given[0].type.kind == 'bytes':
        return given[0].scan(), given[0].size, kind
    return 1, None, kind


def _compared(given: Sequence[_Value]) -> int:
    return _share(min(v.size.max for v in given), _TRAVERSE)


def _list_scan(target: _Value) -> int:
    if target.type.kind != 'list':
        return target.scan()
    element = _element_of(target)
    each = 1 + (element.scan() if element.type.kind in _LOOKS_LIKE_TEXT else 0)
    return _times(target.size.max, each)


def _element_of(target: _Value) -> _Value:
    path = None if target.path is None else (target.path.items or _LOST)
    return _Value(0, target.type.items or DYN, path=path)


def _joined(target: _Value, given: Sequence[_Value]) -> Size:
    count = target.size
    size = count.times(_element_of(target).size)
    if given:
        size = size.plus(given[0].size.times(Size(max(count.min - 1, 0), max(count.max - 1, 0))))
    return size


def _replaced(whole: Size, old: Size, new: Size) -> Size:
    """The longest and the shortest result of a replacement."""
    if old.min == 0:  # nothing is found between all characters
        most = _add(_times(_add(whole.max, 1), new.max), whole.max)
    elif new.max <= old.min:
        most = whole.max
    else:
        most = _times(_share(whole.max, 1 / old.min), new.max)
    if old.max == 0:
        fewest = _add(_times(_add(whole.min, 1), new.min), whole.min)
    elif old.max <= new.min:
        fewest = whole.min
    else:
        fewest = _times(_share(whole.min, 1 / old.max), new.min)
    return Size(fewest, most)


def _common(values: Sequence[_Value]) -> Decl:
    first = values[0].type if values else DYN
    return first if all(v.type.kind == first.kind for v in values) else DYN


def _literal_size(e: Expr) -> Size:
    """Characters of a text, 1 of anything else."""
    if e.word not in _LOOKS_LIKE_TEXT:
        return ONE
    prefix, quote = re.match(r'([rRbB]*)("{3}|\'{3}|"|\')', e.text).groups()  # type: ignore[union-attr]
    body = e.text[len(prefix) + len(quote) : -len(quote)]
    count = len(body) if 'r' in prefix.lower() else len(_ESCAPES.findall(body))
    return Size(count, count)
