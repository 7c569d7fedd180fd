"""Whether a custom resource's values fit its schema: a compiled validator says yes, a walk says exactly what is wrong.

On an update, what did not change is not held against the writer (validation ratcheting), so that a schema may become
stricter. Sources: kube-openapi pkg/validation/{validate,errors} for the texts, apiextensions-apiserver
pkg/apiserver/validation/{validation,ratcheting}.go, pkg/apiserver/schema/listtype.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any

import orjson

from kapi.crd.formats import FORMATS
from kapi.registry.broken import duplicate, not_supported, shown, too_many
from kapi.registry.strategy import Invalid
from kapi.schemas.structural import INT_OR_STRING, LIST_KEYS, LIST_TYPE, Props, child, children

MISSING: Any = object()
"""There is no old value, or none that can be told to be the same element."""
PATTERN_CACHE_MAX = 4_096
_INT_RANGES = {'int32': (-(2**31), 2**31 - 1), 'int64': (-(2**63), 2**63 - 1)}
_KEPT_WORDS = (
    'required', 'enum', 'minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf', 'minLength',
    'maxLength', 'pattern', 'minItems', 'maxItems', 'minProperties', 'maxProperties', 'format',
)  # fmt: skip


class Values:
    """One version's schema as a judge of values."""

    def __init__(self, props: Props) -> None:
        self.props = props
        self._unique_lists = _has_unique_lists(props)

    @cached_property
    def _validator(self) -> Any:
        import jsonschema_rs  # noqa: PLC0415 — compiled on first use

        return jsonschema_rs.Draft4Validator(
            json_schema(self.props), formats=dict(FORMATS), validate_formats=True, ignore_unknown_formats=True
        )

    def validate(self, new: Any, old: Any = MISSING) -> Iterator[Invalid]:
        """Every broken rule of `new`; `old` is the stored object on an update."""
        if not self._fits(new):
            yield from walk(self.props, new, old, '', root=True)
        if self._unique_lists:
            yield from repeated(self.props, new, old, '')

    def _fits(self, value: Any) -> bool:
        try:
            return bool(self._validator.is_valid(value))
        except ValueError:  # a pattern that only Go's engine takes; the walk knows how to skip it
            return False


def _has_unique_lists(props: Props) -> bool:
    return props.get(LIST_TYPE) in {'map', 'set'} or any(_has_unique_lists(c) for c in children(props))


def json_schema(props: Props) -> dict[str, Any]:
    """Draft 4 JSON schema of `props`."""
    built: dict[str, Any] = {word: props[word] for word in _KEPT_WORDS if word in props}
    if props.get('format') in _INT_RANGES and 'type' in props and props['type'] == 'integer':
        low, high = _INT_RANGES[built.pop('format')]
        built['allOf'] = [{'minimum': low, 'maximum': high}]
    if props.get(INT_OR_STRING):
        built['type'] = ['integer', 'string']
    elif props.get('type'):
        built['type'] = [props['type']]
    if props.get('nullable') and 'type' in built:
        built['type'].append('null')
        if 'enum' in built:
            built['enum'] = [*built['enum'], None]
    if 'properties' in props:
        built['properties'] = {k: json_schema(v) for k, v in props['properties'].items()}
    for word in ('additionalProperties', 'items', 'not'):
        if isinstance(props.get(word), dict):
            built[word] = json_schema(props[word])
    for word in ('allOf', 'anyOf', 'oneOf'):
        if props.get(word):
            built[word] = [*built.get(word, ()), *(json_schema(p) for p in props[word])]
    return built


@lru_cache(maxsize=PATTERN_CACHE_MAX)
def pattern(text: str) -> re.Pattern[str] | None:
    """None when Python cannot read it; the definition's check warns of that."""
    try:
        return re.compile(text.replace(r'\z', r'\Z'))
    except re.error:
        return None


def _in_body(at: str, value: Any, detail: str) -> Invalid:
    return Invalid(at or '<nil>', f'Invalid value: {shown(value)}: {f"{at} " if at else ""}in body {detail}')


def type_of(value: Any) -> str:
    """The JSON type's name as schemas call it."""
    match value:
        case None:
            return 'null'
        case bool():
            return 'boolean'
        case str():
            return 'string'
        case int():
            return 'integer'
        case float():
            return 'number'
        case list():
            return 'array'
    return 'object'


def _type_error(props: Props, value: Any) -> str:
    """The type that was wanted, when `value` is of another."""
    found = type_of(value)
    if props.get('nullable') and value is None:
        return ''
    if props.get(INT_OR_STRING):
        return '' if found in {'integer', 'string'} else 'integer,string'
    wanted = props.get('type')
    if not wanted or found == wanted or (wanted == 'number' and found == 'integer'):
        return ''
    if wanted == 'integer' and found == 'number' and float(value).is_integer():
        return ''
    return str(wanted)


def walk(props: Props, value: Any, old: Any, at: str, *, root: bool = False) -> Iterator[Invalid]:
    """Everything wrong with `value` below `at`."""
    if old is not MISSING and old == value:
        return  # ratcheting: it was accepted once
    if wanted := _type_error(props, value):
        got = type_of(value)
        where = f'{at} ' if at else ''
        text = f'Invalid value: "{got}": {where}in body must be of type {wanted}: "{got}"'
        yield Invalid(at or '<nil>', text, 'FieldValueTypeInvalid')
        return
    if value is None:
        return
    if 'enum' in props and value not in props['enum']:
        supported = [e if isinstance(e, str) else shown(e) for e in props['enum']]
        yield not_supported(at, value, supported) if isinstance(value, str) else Invalid(
            at, f'Unsupported value: {shown(value)}: supported values: {", ".join(shown(e) for e in props["enum"])}',
            'FieldValueNotSupported',
        )  # fmt: skip
    match value:
        case bool():
            pass
        case str():
            yield from _text(props, value, at)
        case int() | float():
            yield from _number(props, value, at)
        case list():
            yield from _list(props, value, old, at)
        case dict():
            yield from _object(props, value, old, at, root=root)
    yield from _junctors(props, value, at)


def _text(props: Props, value: str, at: str) -> Iterator[Invalid]:
    if len(value) < (props.get('minLength') or 0):
        yield _in_body(at, value, f'should be at least {props["minLength"]} chars long')
    if props.get('maxLength') is not None and len(value) > props['maxLength']:
        yield Invalid(at, f'Too long: may not be more than {props["maxLength"]} bytes', 'FieldValueTooLong')
    if props.get('pattern') and (regex := pattern(props['pattern'])) is not None and not regex.search(value):
        yield _in_body(at, value, f"should match '{props['pattern']}'")
    check = FORMATS.get(props.get('format') or '')
    if check is not None and not check(value):
        text = f'Invalid value: {shown(value)}: {at} in body must be of type {props["format"]}: {shown(value)}'
        yield Invalid(at, text)


def _number(props: Props, value: float, at: str) -> Iterator[Invalid]:
    low, high, step = props.get('minimum'), props.get('maximum'), props.get('multipleOf')
    if props.get('type') == 'integer' and props.get('format') in _INT_RANGES:
        least, most = _INT_RANGES[props['format']]
        if not least <= value <= most:
            yield _in_body(at, value, f'must be of type {props["format"]}: {shown(value)}')
    if low is not None:
        if props.get('exclusiveMinimum') and value <= low:
            yield _in_body(at, value, f'should be greater than {shown(low)}')
        elif value < low:
            yield _in_body(at, value, f'should be greater than or equal to {shown(low)}')
    if high is not None:
        if props.get('exclusiveMaximum') and value >= high:
            yield _in_body(at, value, f'should be less than {shown(high)}')
        elif value > high:
            yield _in_body(at, value, f'should be less than or equal to {shown(high)}')
    if step and abs(value / step - round(value / step)) > 1e-9:
        yield _in_body(at, value, f'should be a multiple of {shown(step)}')


def _list(props: Props, value: list[Any], old: Any, at: str) -> Iterator[Invalid]:
    if len(value) < (props.get('minItems') or 0):
        yield _in_body(at, len(value), f'should have at least {props["minItems"]} items')
    if props.get('maxItems') is not None and len(value) > props['maxItems']:
        yield too_many(at, len(value), props['maxItems'])
    if isinstance(props.get('items'), dict):
        before = correlated(props, old)
        for i, item in enumerate(value):
            yield from walk(props['items'], item, before.get(element_key(props, item), MISSING), f'{at}[{i}]')


def _object(props: Props, value: dict[str, Any], old: Any, at: str, *, root: bool) -> Iterator[Invalid]:
    for key in props.get('required') or ():
        if key not in value:
            yield Invalid(f'{at}.{key}' if at else key, 'Required value', 'FieldValueRequired')
    if len(value) < (props.get('minProperties') or 0):
        yield _in_body(at, len(value), f'should have at least {props["minProperties"]} properties')
    if props.get('maxProperties') is not None and len(value) > props['maxProperties']:
        yield too_many(at, len(value), props['maxProperties'])
    for key, item in value.items():
        below = child(props, key)
        if below is None:
            continue
        before = old.get(key, MISSING) if isinstance(old, dict) else MISSING
        if root and key == 'metadata':
            before = MISSING
        yield from walk(below, item, before, f'{at}.{key}' if at else key)


def _junctors(props: Props, value: Any, at: str) -> Iterator[Invalid]:
    """anyOf, oneOf, allOf and not, which only judge values."""
    for part in props.get('allOf') or ():
        yield from walk(part, value, MISSING, at)

    def fits(part: Props) -> bool:
        return next(walk(part, value, MISSING, at), None) is None

    if props.get('anyOf') and not any(map(fits, props['anyOf'])):
        yield _junction(at, value, 'must validate at least one schema (anyOf)')
        yield from walk(props['anyOf'][0], value, MISSING, at)
    if props.get('oneOf') and sum(map(fits, props['oneOf'])) != 1:
        count = sum(map(fits, props['oneOf']))
        found = '. Found none valid' if not count else f'. Found {count} valid alternatives'
        yield _junction(at, value, f'must validate one and only one schema (oneOf){found}')
    if props.get('not') and fits(props['not']):
        yield _junction(at, value, 'must not validate the schema (not)')


def _junction(at: str, value: Any, rule: str) -> Invalid:
    return Invalid(at or '<nil>', f'Invalid value: {shown(value)}: "{at}" {rule}')


def element_key(props: Props, item: Any) -> str:
    """What tells one element of a keyed list from the others; empty when elements cannot be told apart."""
    if props.get(LIST_TYPE) != 'map' or not isinstance(item, dict):
        return ''
    keys = {k: item.get(k, _key_default(props, k)) for k in props.get(LIST_KEYS) or ()}
    return orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


def _key_default(props: Props, key: str) -> Any:
    return ((props.get('items') or {}).get('properties') or {}).get(key, {}).get('default')


def correlated(props: Props, old: Any) -> dict[str, Any]:
    """Old elements by key; empty for lists whose elements have none."""
    if props.get(LIST_TYPE) != 'map' or not isinstance(old, list):
        return {}
    return {element_key(props, item): item for item in old if isinstance(item, dict)}


def repeated(props: Props, value: Any, old: Any, at: str) -> Iterator[Invalid]:
    """Elements that a set or a keyed list has twice."""
    if old is not MISSING and old == value:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            below = child(props, key)
            if below is not None and isinstance(item, dict | list):
                before = old.get(key, MISSING) if isinstance(old, dict) else MISSING
                yield from repeated(below, item, before, f'{at}.{key}' if at else key)
        return
    if not isinstance(value, list) or not isinstance(props.get('items'), dict):
        return
    kind = props.get(LIST_TYPE)
    before = correlated(props, old)
    seen: set[str] = set()
    for i, item in enumerate(value):
        if kind in {'set', 'map'}:
            key = element_key(props, item) or orjson.dumps(item, option=orjson.OPT_SORT_KEYS).decode()
            if key in seen:
                yield duplicate(f'{at}[{i}]', orjson.loads(key))
            seen.add(key)
        if isinstance(item, dict | list):
            yield from repeated(props['items'], item, before.get(element_key(props, item), MISSING), f'{at}[{i}]')
