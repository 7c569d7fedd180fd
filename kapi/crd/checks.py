"""Whether a definition's schema is structural and makes sense, with upstream's words for the usual mistakes.

Source: apiextensions-apiserver pkg/apiserver/schema/validation.go, pkg/apis/apiextensions/validation/validation.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kapi.crd.rules import RULES_WORD, RuleError, compile_rule, uncorrelatable
from kapi.crd.values import MISSING, pattern, walk
from kapi.registry.broken import duplicate, forbidden, invalid, not_supported, required, too_many
from kapi.registry.strategy import Invalid
from kapi.schemas.structural import (
    EMBEDDED,
    INT_OR_STRING,
    LIST_KEYS,
    LIST_TYPE,
    MAP_TYPE,
    PRESERVE,
    Props,
    unknown,
)

Obj = dict[str, Any]

SELECTABLE_FIELDS_MAX = 8
SCHEMA_DEPTH_MAX = 100
"""Nesting of a schema; deeper ones are refused."""
TYPES = ('array', 'boolean', 'integer', 'number', 'object', 'string')
COLUMN_TYPES = ('boolean', 'date', 'integer', 'number', 'string')
_COLUMN_FORMATS = ('byte', 'date', 'date-time', 'double', 'float', 'int32', 'int64', 'password')
_UNSUPPORTED = ('$ref', '$schema', 'id', 'definitions', 'dependencies', 'patternProperties', 'additionalItems')
_JUNCTORS = ('allOf', 'anyOf', 'oneOf')
_NOT_IN_JUNCTORS = {
    'type': 'must be empty to be structural', 'title': 'must be empty to be structural',
    'description': 'must be empty to be structural', 'nullable': 'must be false to be structural',
    'default': 'must be undefined to be structural', 'additionalProperties': 'must be undefined to be structural',
    PRESERVE: 'must be undefined to be structural', EMBEDDED: 'must be false to be structural',
    INT_OR_STRING: 'must be false to be structural', LIST_TYPE: 'must be undefined to be structural',
    LIST_KEYS: 'must be empty to be structural', MAP_TYPE: 'must be undefined to be structural',
    RULES_WORD: 'must be empty to be structural',
}  # fmt: skip
_FIELD_PATH = re.compile(r"""\.[A-Za-z_]\w*|\['(?:[^'\\]|\\.)+'\]""")
_REASONS = ('FieldValueDuplicate', 'FieldValueForbidden', 'FieldValueInvalid', 'FieldValueRequired')


def check_schema(props: Any, at: str) -> Iterator[Invalid]:
    """Everything wrong with the schema at the root of one version."""
    if not isinstance(props, dict):
        return
    kind = props.get('type')
    if not kind:
        yield required(f'{at}.type', 'must not be empty at the root')
    elif kind != 'object':
        yield invalid(f'{at}.type', kind, 'must be object at the root')
    if props.get('nullable'):
        yield forbidden(f'{at}.nullable', 'nullable cannot be true at the root')
    metadata = (props.get('properties') or {}).get('metadata') or {}
    extra = set(metadata) - {'type', 'properties', 'description', 'title', RULES_WORD}
    if extra or set(metadata.get('properties') or {}) - {'name', 'generateName'}:
        why = 'must not specify anything other than name and generateName, but metadata is implicitly specified'
        yield forbidden(f'{at}.properties[metadata]', why)
    yield from _check(props, at, 0, correlatable=True)


def _check(props: Props, at: str, depth: int, *, correlatable: bool) -> Iterator[Invalid]:
    if depth > SCHEMA_DEPTH_MAX:
        yield forbidden(at, f'the schema is nested deeper than {SCHEMA_DEPTH_MAX} levels')
        return
    yield from _words(props, at)
    yield from _extensions(props, at)
    yield from _default(props, at)
    yield from _rules(props, at, correlatable=correlatable)
    for word in _JUNCTORS:
        for i, part in enumerate(props.get(word) or ()):
            yield from _junctor(part, f'{at}.{word}[{i}]', props, depth + 1)
    if isinstance(props.get('not'), dict):
        yield from _junctor(props['not'], f'{at}.not', props, depth + 1)
    for key, below in (props.get('properties') or {}).items():
        where = f'{at}.properties[{key}]'
        if depth == 0 and key == 'metadata':
            continue
        yield from _typed(below, where, 'object fields')
        yield from _check(below, where, depth + 1, correlatable=correlatable)
    more, items = props.get('additionalProperties'), props.get('items')
    if isinstance(more, dict):
        yield from _typed(more, f'{at}.additionalProperties', 'object fields')
        yield from _check(more, f'{at}.additionalProperties', depth + 1, correlatable=correlatable)
    if isinstance(items, dict):
        yield from _typed(items, f'{at}.items', 'array items')
        correlatable = correlatable and not uncorrelatable(props)
        yield from _check(items, f'{at}.items', depth + 1, correlatable=correlatable)


def _typed(props: Props, at: str, what: str) -> Iterator[Invalid]:
    if not props.get('type') and not props.get(INT_OR_STRING) and not props.get(PRESERVE):
        yield required(f'{at}.type', f'must not be empty for specified {what}')


def _words(props: Props, at: str) -> Iterator[Invalid]:
    kind = props.get('type')
    if kind and kind not in TYPES:
        yield not_supported(f'{at}.type', kind, TYPES)
    for word in _UNSUPPORTED:
        if props.get(word):
            yield forbidden(f'{at}.{word}', f'{word} is not supported')
    if props.get('uniqueItems'):
        why = 'uniqueItems cannot be set to true since the runtime complexity becomes quadratic'
        yield forbidden(f'{at}.uniqueItems', why)
    if props.get('additionalProperties') is not None:
        if props.get('properties'):
            yield forbidden(f'{at}.additionalProperties', 'additionalProperties and properties are mutual exclusive')
        if props['additionalProperties'] is False:
            yield forbidden(f'{at}.additionalProperties', 'additionalProperties cannot be set to false')
    if isinstance(props.get('items'), list):
        yield forbidden(f'{at}.items', 'items must be a schema object and not an array')
    elif kind == 'array' and not props.get('items'):
        yield required(f'{at}.items', 'must be specified')
    if props.get('pattern') and pattern(props['pattern']) is None:
        yield invalid(f'{at}.pattern', props['pattern'], 'must be a valid regular expression, but it is not')


def _extensions(props: Props, at: str) -> Iterator[Invalid]:
    kind = props.get('type')
    if PRESERVE in props and props[PRESERVE] is not True:
        yield invalid(f'{at}.{PRESERVE}', props[PRESERVE], 'must be true or undefined')
    if props.get(EMBEDDED):
        if kind != 'object':
            yield invalid(f'{at}.type', kind or '', f'must be object if {EMBEDDED} is true')
        if not props.get(PRESERVE) and not props.get('properties'):
            why = f'must not be empty if {EMBEDDED} is true without {PRESERVE}'
            yield required(f'{at}.properties', why)
    if props.get(INT_OR_STRING) and kind:
        yield forbidden(f'{at}.type', f'must be empty if {INT_OR_STRING} is true')
    listing, mapping = props.get(LIST_TYPE), props.get(MAP_TYPE)
    if mapping:
        if mapping not in {'atomic', 'granular'}:
            yield not_supported(f'{at}.{MAP_TYPE}', mapping, ('atomic', 'granular'))
        if kind != 'object':
            yield invalid(f'{at}.type', kind or '', f'must be object if {MAP_TYPE} is specified')
    if listing is None:
        if props.get(LIST_KEYS):
            yield invalid(f'{at}.{LIST_TYPE}', '', f'must be map if {LIST_KEYS} is non-empty')
        return
    if kind != 'array':
        yield invalid(f'{at}.type', kind or '', f'must be array if {LIST_TYPE} is specified')
    if listing not in {'atomic', 'set', 'map'}:
        yield not_supported(f'{at}.{LIST_TYPE}', listing, ('atomic', 'map', 'set'))
    elif listing == 'map':
        yield from _map_list(props, at)


def _map_list(props: Props, at: str) -> Iterator[Invalid]:
    keys, items = props.get(LIST_KEYS) or [], props.get('items') or {}
    if not keys:
        yield required(f'{at}.{LIST_KEYS}', f'must not be empty if {LIST_TYPE} is map')
    if not isinstance(items, dict):
        return
    if items.get('type') != 'object':
        yield invalid(
            f'{at}.items.type', items.get('type') or '', f"must be object if parent array's {LIST_TYPE} is map"
        )
    fields = items.get('properties') or {}
    for i, key in enumerate(keys):
        if key in keys[:i]:
            yield duplicate(f'{at}.{LIST_KEYS}[{i}]', key)
        if key not in fields:
            yield invalid(f'{at}.{LIST_KEYS}', keys, 'entries must all be names of item properties')
        elif fields[key].get('type') in {'array', 'object'}:
            why = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            yield invalid(f'{at}.items.properties[{key}].type', fields[key]['type'], why)
        elif 'default' not in fields[key] and key not in (items.get('required') or ()):
            why = f'this property is in {LIST_KEYS}, so it must have a default or be a required property'
            yield required(f'{at}.items.properties[{key}].default', why)


def _default(props: Props, at: str) -> Iterator[Invalid]:
    if props.get('default') is None:
        return
    value = props['default']
    if next(iter(unknown(props, value, '')), None):
        yield invalid(f'{at}.default', value, 'must not have unknown fields')
    yield from walk(props, value, MISSING, f'{at}.default')


def _junctor(part: Any, at: str, parent: Props, depth: int) -> Iterator[Invalid]:
    """Below anyOf and the like only value rules may stand, about fields that the structure has."""
    if not isinstance(part, dict) or depth > SCHEMA_DEPTH_MAX:
        return
    for word, why in _NOT_IN_JUNCTORS.items():
        allowed = word == 'type' and parent.get(INT_OR_STRING)
        if part.get(word) not in (None, False, '', []) and not allowed:
            yield forbidden(f'{at}.{word}', why)
    for key, below in (part.get('properties') or {}).items():
        known = (parent.get('properties') or {}).get(key)
        if known is None and not isinstance(parent.get('additionalProperties'), dict):
            yield required(_parent_path(at, key), 'because it is defined in ' + f'{at}.properties[{key}]')
        yield from _junctor(below, f'{at}.properties[{key}]', known or {}, depth + 1)
    if isinstance(part.get('items'), dict):
        yield from _junctor(part['items'], f'{at}.items', parent.get('items') or {}, depth + 1)
    for word in _JUNCTORS:
        for i, inner in enumerate(part.get(word) or ()):
            yield from _junctor(inner, f'{at}.{word}[{i}]', parent, depth + 1)
    if isinstance(part.get('not'), dict):
        yield from _junctor(part['not'], f'{at}.not', parent, depth + 1)


def _parent_path(at: str, key: str) -> str:
    base = re.sub(r'\.(?:(?:allOf|anyOf|oneOf)\[\d+\]|not)', '', at)
    return f'{base}.properties[{key}]'


def _rules(props: Props, at: str, *, correlatable: bool) -> Iterator[Invalid]:
    for i, raw in enumerate(props.get(RULES_WORD) or ()):
        where = f'{at}.{RULES_WORD}[{i}]'
        source = raw.get('rule') or ''
        if not source.strip():
            yield required(f'{where}.rule', 'rule is not specified')
            continue
        if raw.get('reason') and raw['reason'] not in _REASONS:
            yield not_supported(f'{where}.reason', raw['reason'], _REASONS)
        if '\n' in (raw.get('message') or '').strip():
            yield invalid(f'{where}.message', raw['message'], 'message must not contain line breaks')
        path = raw.get('fieldPath') or ''
        if path and _FIELD_PATH.sub('', path):
            yield invalid(f'{where}.fieldPath', path, 'fieldPath must be a valid path')
        try:
            rule = compile_rule(raw, props)
        except RuleError as e:
            yield invalid(f'{where}.rule', source, str(e))
            continue
        if rule.mentions_old and not correlatable:
            why = 'oldSelf cannot be used on the uncorrelatable portion of the schema'
            yield invalid(f'{where}.rule', source, why)
        if raw.get('optionalOldSelf') is not None and not rule.mentions_old:
            why = 'may not be set if oldSelf is not used in rule'
            yield invalid(f'{where}.optionalOldSelf', raw['optionalOldSelf'], why)


# — what stands beside the schema —


def check_columns(columns: Any, at: str) -> Iterator[Invalid]:
    for i, column in enumerate(columns or ()):
        where = f'{at}[{i}]'
        if not column.get('name'):
            yield required(f'{where}.name')
        if not column.get('type'):
            yield required(f'{where}.type', f'must be one of {",".join(COLUMN_TYPES)}')
        elif column['type'] not in COLUMN_TYPES:
            yield invalid(f'{where}.type', column['type'], f'must be one of {",".join(COLUMN_TYPES)}')
        if column.get('format') and column['format'] not in _COLUMN_FORMATS:
            yield invalid(f'{where}.format', column['format'], f'must be one of {",".join(_COLUMN_FORMATS)}')
        path = column.get('jsonPath') or ''
        if not path:
            yield required(f'{where}.JSONPath')
        elif not path.startswith('.'):
            yield invalid(f'{where}.JSONPath', path, 'must be a simple json path starting with .')


def check_subresources(subresources: Any, at: str) -> Iterator[Invalid]:
    scale = (subresources or {}).get('scale')
    if scale is None:
        return
    for word, parents, need in (
        ('specReplicasPath', ('.spec.',), True),
        ('statusReplicasPath', ('.status.',), True),
        ('labelSelectorPath', ('.spec.', '.status.'), False),
    ):
        path = scale.get(word) or ''
        if not path:
            if need:
                yield required(f'{at}.scale.{word}')
        elif not path.startswith(parents) or '[' in path:
            shown = ' or '.join(p.rstrip('.') for p in parents)
            yield invalid(f'{at}.scale.{word}', path, f'should be a json path under {shown}')


def check_selectable(fields: Any, props: Any, at: str) -> Iterator[Invalid]:
    if len(fields or ()) > SELECTABLE_FIELDS_MAX:
        yield too_many(at, len(fields), SELECTABLE_FIELDS_MAX)
    seen: set[str] = set()
    for i, entry in enumerate(fields or ()):
        where, path = f'{at}[{i}].jsonPath', entry.get('jsonPath') or ''
        if not path:
            yield required(where)
            continue
        if path in seen:
            yield duplicate(where, path)
        seen.add(path)
        target: Any = props
        for part in path.lstrip('.').split('.'):
            target = ((target or {}).get('properties') or {}).get(part)
        if not path.startswith('.') or target is None or path.startswith('.metadata'):
            yield invalid(where, path, 'is an invalid path: does not refer to a valid field')
        elif target.get('type') not in {'string', 'boolean', 'integer'}:
            why = 'must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.'  # noqa: E501
            yield invalid(where, path, why)


def check_conversion(conversion: Any, at: str = 'spec.conversion') -> Iterator[Invalid]:
    strategy, webhook = (conversion or {}).get('strategy') or 'None', (conversion or {}).get('webhook')
    if strategy not in {'None', 'Webhook'}:
        yield not_supported(f'{at}.strategy', strategy, ('None', 'Webhook'))
    elif strategy == 'None':
        if webhook:
            why = 'should not be set when strategy is not set to Webhook'
            yield forbidden(f'{at}.webhookClientConfig', why)
        return
    else:
        config = (webhook or {}).get('clientConfig')
        if config is None:
            yield required(f'{at}.webhookClientConfig', 'required when strategy is set to Webhook')
        elif bool(config.get('url')) == bool(config.get('service')):
            yield required(f'{at}.webhookClientConfig', 'exactly one of url or service is required')
        elif config.get('url') and not config['url'].startswith('https://'):
            why = "'https' is the only allowed URL scheme"
            yield invalid(f'{at}.webhookClientConfig.url', config['url'], why)
        versions = (webhook or {}).get('conversionReviewVersions') or []
        if not versions:
            yield required(f'{at}.conversionReviewVersions')
        elif 'v1' not in versions and 'v1beta1' not in versions:
            why = 'must include at least one of v1, v1beta1'
            yield invalid(f'{at}.conversionReviewVersions', versions, why)
