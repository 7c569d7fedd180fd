"""`x-kubernetes-validations`: CEL rules compiled once per definition, evaluated on every write.

The evaluator cannot be stopped in the middle, so a rule's cost is bounded before it runs: elements below `self` to the
power of its nested loops. Types follow the schema (`number` is a double, `date-time` a timestamp), and field names are
escaped as upstream does. Source: apiextensions-apiserver pkg/apiserver/schema/cel/{validation,values}.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kapi.crd.celengine import compiled, engine
from kapi.crd.formats import FORMATS
from kapi.crd.values import MISSING, correlated, element_key
from kapi.registry.strategy import Cause, Invalid
from kapi.schemas.structural import EMBEDDED, INT_OR_STRING, LIST_TYPE, Props, child
from kcore.meta.times import parse_time

if TYPE_CHECKING:
    from cel import Context, Program

RULES_WORD = 'x-kubernetes-validations'
EXPRESSION_CHARS_MAX = 10_000
"""Longer rules are refused with the definition."""
STEPS_MAX = 2_000_000
"""Loop steps that all rules on one object may take at the worst; beyond, the write is refused."""
_LOOPS = re.compile(r'\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*\(')
_STRINGS = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'')
_PATHS = re.compile(r'(?<![\w.\])])self((?:\s*\.\s*[A-Za-z_]\w*)+)(\s*\()?')
_RESERVED = frozenset(
    (
        'true', 'false', 'null', 'in', 'as', 'break', 'const', 'continue', 'else', 'for', 'function', 'if', 'import',
        'let', 'loop', 'package', 'namespace', 'return', 'var', 'void', 'while',
    )
)  # fmt: skip
_GO_DURATION = re.compile(r'([\d.]+)(ns|us|µs|ms|s|m|h)')
_SECONDS = {'ns': 1e-9, 'us': 1e-6, 'µs': 1e-6, 'ms': 1e-3, 's': 1.0, 'm': 60.0, 'h': 3600.0}


class RuleError(ValueError):
    """A rule that cannot be compiled; the text goes into the definition's 422."""


@dataclass(frozen=True, slots=True)
class Rule:
    source: str
    program: Program
    depth: int
    """How deeply loops are nested."""
    mentions_old: bool = False
    optional_old: bool = False
    message: str = ''
    message_program: Program | None = None
    reason: str = ''
    field_path: str = ''

    @property
    def transition(self) -> bool:
        """Runs only when there is an old value."""
        return self.mentions_old and not self.optional_old

    @property
    def text(self) -> str:
        return self.message or f'failed rule: {self.source}'


@dataclass(slots=True)
class RuleNode:
    """The rules at one place of the schema and below it."""

    props: Props
    rules: tuple[Rule, ...] = ()
    fields: dict[str, RuleNode] = field(default_factory=dict)
    values: RuleNode | None = None
    items: RuleNode | None = None


def compile_expression(source: str) -> Program:
    """Raises RuleError with the compiler's words."""
    if len(source) > EXPRESSION_CHARS_MAX:
        raise RuleError(f'compilation failed: the expression is longer than {EXPRESSION_CHARS_MAX} characters')
    try:
        return compiled(source)
    except ValueError as e:
        text = str(e).partition("': ")[2] or str(e)
        raise RuleError(f'compilation failed: {text.strip()}') from None


def compile_rule(raw: dict[str, Any], props: Props) -> Rule:
    """Raises RuleError: syntax, an unknown variable, function or field."""
    source = str(raw.get('rule') or '')
    program = compile_expression(source)
    depth = _check(source, program, props)
    message = raw.get('messageExpression') or ''
    message_program = compile_expression(message) if message else None
    return Rule(
        source, program, depth, 'oldSelf' in program.variables(), bool(raw.get('optionalOldSelf')),
        raw.get('message') or '', message_program, raw.get('reason') or '', raw.get('fieldPath') or '',
    )  # fmt: skip


def _check(source: str, program: Program, props: Props) -> int:
    """What a type checker would say of names; returns the depth of loops."""
    bare = _STRINGS.sub('""', source)
    for name in program.functions():
        if re.match(r'[A-Za-z]', name) and name not in engine()[1] and name not in NATIVE:
            raise RuleError(f"compilation failed: ERROR: <input>: undeclared reference to '{name}' (in container '')")
    bound = set(re.findall(r'\(\s*([A-Za-z_]\w*)\s*,', bare))
    for name in program.variables():
        if name not in {'self', 'oldSelf'} and name not in bound and name not in NATIVE:
            raise RuleError(f"compilation failed: ERROR: <input>: undeclared reference to '{name}' (in container '')")
    for found in _PATHS.finditer(bare):
        names = [n.strip() for n in found.group(1).split('.') if n.strip()]
        missing = unknown_field(props, names[:-1] if found.group(2) else names)
        if missing:
            raise RuleError(f"compilation failed: ERROR: <input>:1:{found.start() + 5}: undefined field '{missing}'")
    return _depth(bare)


NATIVE = frozenset(
    (
        'size', 'contains', 'startsWith', 'endsWith', 'matches', 'has', 'int', 'uint', 'double', 'string', 'bytes',
        'bool', 'timestamp', 'duration', 'type', 'dyn', 'list', 'map', 'null_type', 'optional', 'of', 'none',
        'ofNonZeroValue', 'hasValue', 'value', 'orValue', 'or', 'all', 'exists', 'exists_one', 'filter', 'math', 'sets',
        'strings', 'base64', 'lists', 'greatest', 'least', 'equivalent', 'intersects', 'quote', 'encode', 'decode',
        'range', 'abs', 'ceil', 'floor', 'round', 'trunc', 'sqrt', 'isNaN', 'isInf', 'isFinite', 'bitOr', 'bitAnd',
        'bitXor', 'bitNot', 'bitShiftLeft', 'bitShiftRight', 'getFullYear', 'getMonth', 'getDate', 'getDayOfMonth',
        'getDayOfWeek', 'getDayOfYear', 'getHours', 'getMinutes', 'getSeconds', 'getMilliseconds', 'max', 'min',
    )
)  # fmt: skip


def unknown_field(props: Props, names: list[str]) -> str:
    """The first of the chained names that the schema says cannot be there; empty when all may be."""
    at: Props | None = props
    for name in names:
        if at is None or at.get('type') != 'object' or not at.get('properties') or at.get('additionalProperties'):
            return ''
        fields = {escape(k): v for k, v in at['properties'].items()}
        if at.get(EMBEDDED) or at is props:
            fields |= {k: {} for k in ('apiVersion', 'kind', 'metadata') if k not in fields}
        if name not in fields:
            return name
        at = fields[name] or None
    return ''


def _depth(source: str) -> int:
    """Nesting of loops: how many are open at once."""
    opens = {m.end() - 1 for m in _LOOPS.finditer(source)}
    stack: list[bool] = []
    deepest = 0
    for i, char in enumerate(source):
        if char == '(':
            stack.append(i in opens)
            deepest = max(deepest, sum(stack))
        elif char == ')' and stack:
            stack.pop()
    return deepest


def compile_tree(props: Props) -> RuleNode | None:
    """All rules of a schema; None when there are none. Raises RuleError."""
    node = RuleNode(props, tuple(compile_rule(raw, props) for raw in props.get(RULES_WORD) or ()))
    for key, below in (props.get('properties') or {}).items():
        if (compiled := compile_tree(below)) is not None:
            node.fields[key] = compiled
    if isinstance(props.get('additionalProperties'), dict):
        node.values = compile_tree(props['additionalProperties'])
    if isinstance(props.get('items'), dict):
        node.items = compile_tree(props['items'])
    return node if node.rules or node.fields or node.values or node.items else None


def escape(name: str) -> str:
    """A field name as expressions spell it."""
    if name in _RESERVED:
        return f'__{name}__'
    if re.fullmatch(r'[A-Za-z_]\w*', name) and '__' not in name:
        return name
    text = name.replace('__', '__underscores__')
    return text.replace('.', '__dot__').replace('-', '__dash__').replace('/', '__slash__')


def to_cel(props: Props | None, value: Any, *, root: bool = False) -> Any:
    """A value with the types that the schema gives it."""
    if props is None:
        return value
    match value:
        case bool() | None:
            return value
        case int():
            return float(value) if props.get('type') == 'number' and not props.get(INT_OR_STRING) else value
        case str():
            return _text(props, value)
        case list():
            items = props.get('items')
            return [to_cel(items, v) for v in value] if isinstance(items, dict) else value
        case dict():
            if root or props.get(EMBEDDED):
                value = {**value, 'metadata': _named_only(value.get('metadata'))}
            named = props.get('properties') or {}
            return {escape(k) if k in named else k: to_cel(child(props, k), v) for k, v in value.items()}
    return value


def _named_only(metadata: Any) -> Any:
    if not isinstance(metadata, dict):
        return {}
    return {k: metadata[k] for k in ('name', 'generateName') if k in metadata}


def _text(props: Props, value: str) -> Any:
    kind = props.get('format')
    if kind in {'date-time', 'datetime'}:
        try:
            return parse_time(value)
        except ValueError:
            return value
    if kind == 'duration' and FORMATS['duration'](value):
        total = sum(float(n) * _SECONDS[unit] for n, unit in _GO_DURATION.findall(value))
        return timedelta(seconds=-total if value.startswith('-') else total)
    return value


def size_of(value: Any) -> int:
    """Elements and fields below, this one included."""
    if isinstance(value, dict):
        return 1 + sum(map(size_of, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(size_of, value))
    return 1


class Evaluation:
    """The rules on one object; `steps` counts down what they may still cost."""

    def __init__(self) -> None:
        self.steps = STEPS_MAX
        module, functions = engine()
        self._optional = module.OptionalValue
        self.context: Context = module.Context(variables={}, functions=functions)

    def run(self, node: RuleNode, new: Any, old: Any, at: str = '', *, root: bool = True) -> Iterator[Invalid]:
        """Broken rules, outermost first. `old` is MISSING on create and where elements cannot be told apart."""
        if new is None:
            return
        same = old is not MISSING and old == new
        if node.rules:
            given = to_cel(node.props, new, root=root)
            before = MISSING if old is MISSING or old is None else to_cel(node.props, old, root=root)
            size = size_of(new)
            for rule in node.rules:
                if same and not (rule.transition or rule.optional_old):
                    continue  # ratcheting
                yield from self._one(rule, (given, before), at, node.props.get('type') or 'object', size)
        if isinstance(new, dict):
            for key, item in new.items():
                below = node.fields.get(key) or node.values
                if below is not None:
                    previous = old.get(key, MISSING) if isinstance(old, dict) else MISSING
                    yield from self.run(below, item, previous, f'{at}.{key}' if at else key, root=False)
        elif isinstance(new, list) and node.items is not None:
            keyed = correlated(node.props, old)
            for i, item in enumerate(new):
                previous = keyed.get(element_key(node.props, item), MISSING)
                yield from self.run(node.items, item, previous, f'{at}[{i}]', root=False)

    def _one(self, rule: Rule, values: tuple[Any, Any], at: str, kind: str, size: int) -> Iterator[Invalid]:
        new, old = values
        if rule.transition and old is MISSING:
            return
        where = at or '<nil>'
        self.steps -= size**rule.depth
        if self.steps < 0:
            why = 'validation failed due to running out of cost budget, no further validation rules will be run'
            yield Invalid(where, f'Invalid value: "{kind}": {why}')
            return
        context = self.context
        context.add_variable('self', new)
        if rule.optional_old:
            before = self._optional.none() if old is MISSING else self._optional.of(old)
            context.add_variable('oldSelf', before)
        elif old is not MISSING:
            context.add_variable('oldSelf', old)
        try:
            fine = rule.program.execute(context)
        except Exception as e:  # the evaluator and our functions raise whatever fits; all of it refuses the write
            yield Invalid(where, f'Invalid value: "{kind}": {_plain(e)} evaluating rule: {rule.text}')
            return
        if fine is True:
            return
        text = self._message(rule)
        if fine is not False:
            text = 'cel expression evaluated to a value that is no boolean'
        yield _refusal(rule, f'{at}{rule.field_path}'.lstrip('.') or '<nil>', kind, text)

    def _message(self, rule: Rule) -> str:
        if rule.message_program is None:
            return rule.text
        try:
            text = rule.message_program.execute(self.context)
        except Exception:  # upstream too falls back to the plain message
            return rule.text
        return text if isinstance(text, str) and text.strip() and '\n' not in text else rule.text


def _plain(e: BaseException) -> str:
    if isinstance(e, KeyError):
        return f'no such key: {e.args[0] if e.args else ""}'
    return str(e).partition('\n')[0]


def _refusal(rule: Rule, where: str, kind: str, text: str) -> Invalid:
    cause: Cause
    match rule.reason:
        case 'FieldValueForbidden':
            cause, message = 'FieldValueForbidden', f'Forbidden: {text}'
        case 'FieldValueRequired':
            cause, message = 'FieldValueRequired', f'Required value: {text}'
        case 'FieldValueDuplicate':
            cause, message = 'FieldValueDuplicate', f'Duplicate value: "{kind}"'
        case _:
            cause, message = 'FieldValueInvalid', f'Invalid value: "{kind}": {text}'
    return Invalid(where, message, cause)


def uncorrelatable(props: Props) -> bool:
    """Whether elements of this list cannot be followed from one version of the object to the next."""
    return props.get('type') == 'array' and props.get(LIST_TYPE) != 'map'
