"""The words of a 422: constructors for broken rules, and the checks that many kinds share.

Source of texts: apimachinery/pkg/util/validation/field/errors.go, pkg/api/validation/generic.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kapi.registry.broken import (
    duplicate,
    forbidden,
    invalid,
    not_found,
    not_supported,
    required,
    shown,
    too_long,
    too_many,
)
from kapi.registry.strategy import Invalid
from kcore.meta import names
from kcore.meta.quantity import QuantityError, parse
from kcore.meta.selectors import SelectorError, from_label_selector

__all__ = (
    'IMMUTABLE',
    'INT32_MAX',
    'NOT_NEGATIVE',
    'between',
    'complaints',
    'dns_name',
    'duplicate',
    'duplicates',
    'forbidden',
    'immutable',
    'int_or_percent',
    'invalid',
    'label_selector',
    'labels',
    'not_found',
    'not_negative',
    'not_supported',
    'one_of',
    'percent_of',
    'quantity',
    'required',
    'selects_template',
    'shown',
    'too_long',
    'too_many',
)
IMMUTABLE = 'field is immutable'
NOT_NEGATIVE = 'must be greater than or equal to 0'
INT32_MAX = 2**31 - 1


def immutable(field: str, new: Any, old: Any) -> Iterator[Invalid]:
    if new != old:
        yield invalid(field, new, IMMUTABLE)


def complaints(field: str, value: Any, found: Iterable[str]) -> Iterator[Invalid]:
    """One `Invalid` for each complaint of a check in `kcore.meta.names`."""
    for text in found:
        yield invalid(field, value, text)


def one_of(field: str, value: Any, supported: Sequence[str], *, need: bool = True) -> Iterator[Invalid]:
    """An enumeration; with `need` an absent value is an error too."""
    if value in (None, ''):
        if need:
            yield required(field)
    elif value not in supported:
        yield not_supported(field, value, supported)


def not_negative(field: str, value: int | None) -> Iterator[Invalid]:
    if value is not None and value < 0:
        yield invalid(field, value, NOT_NEGATIVE)


def between(field: str, value: int | None, low: int, high: int) -> Iterator[Invalid]:
    if value is not None and not low <= value <= high:
        yield invalid(field, value, f'must be between {low} and {high}, inclusive')


def dns_name(field: str, value: str | None, check: names.NameCheck = names.dns_subdomain) -> Iterator[Invalid]:
    """A required reference by name."""
    if not value:
        yield required(field)
    else:
        yield from complaints(field, value, check(value))


def quantity(field: str, value: Any, *, minimum: int | None = 0) -> Iterator[Invalid]:
    try:
        amount = parse(value)
    except QuantityError as error:
        yield invalid(field, value, str(error))
        return
    if minimum is not None and amount < minimum:
        yield invalid(field, value, NOT_NEGATIVE if minimum == 0 else f'must be greater than or equal to {minimum}')


def labels(field: str, values: Mapping[str, str] | None) -> Iterator[Invalid]:
    for offender, text in names.labels(values or {}):
        yield invalid(field, offender, text)


def label_selector(field: str, selector: Mapping[str, Any] | None) -> Iterator[Invalid]:
    """Syntax of a LabelSelector; upstream's paths to the broken requirement."""
    if selector is None:
        return
    yield from labels(f'{field}.matchLabels', selector.get('matchLabels'))
    for i, expression in enumerate(selector.get('matchExpressions') or ()):
        at = f'{field}.matchExpressions[{i}]'
        operator, values = expression.get('operator', ''), expression.get('values') or ()
        if operator in {'In', 'NotIn'}:
            if not values:
                yield required(f'{at}.values', "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in {'Exists', 'DoesNotExist'}:
            if values:
                yield forbidden(f'{at}.values', "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        else:
            yield invalid(f'{at}.operator', operator, 'not a valid selector operator')
        key = expression.get('key', '')
        yield from complaints(f'{at}.key', key, names.label_key(key))
        for j, value in enumerate(values):
            yield from complaints(f'{at}.values[{j}]', value, names.label_value(value))


def selects_template(spec: Mapping[str, Any], field: str = 'spec') -> Iterator[Invalid]:
    """A workload's selector must be there, be non-empty and match the labels of its own template."""
    selector = spec.get('selector')
    if selector is None:
        yield required(f'{field}.selector')
        return
    yield from label_selector(f'{field}.selector', selector)
    if not (selector.get('matchLabels') or selector.get('matchExpressions')):
        yield invalid(f'{field}.selector', selector, 'empty selector is invalid for deployment')
        return
    template_labels = ((spec.get('template') or {}).get('metadata') or {}).get('labels') or {}
    try:
        matched = from_label_selector(selector).matches(template_labels)
    except SelectorError:
        return
    if not matched:
        yield invalid(
            f'{field}.template.metadata.labels', template_labels, '`selector` does not match template `labels`'
        )


def int_or_percent(field: str, value: Any) -> Iterator[Invalid]:
    """`25%`, or a whole number ≥ 0."""
    if isinstance(value, str):
        if not (value.endswith('%') and value[:-1].isdecimal()):
            yield invalid(
                field, value, names.regex_error('a valid percent string must be a numeric string followed by an ending '
                                                "'%'", '[0-9]+%', '1%', '93%')
            )  # fmt: skip
    else:
        yield from not_negative(field, value)


def percent_of(value: Any) -> int | None:
    """25 of `25%`; None when `value` is no percentage."""
    return int(value[:-1]) if isinstance(value, str) and value.endswith('%') and value[:-1].isdecimal() else None


def duplicates(field: str, items: Iterable[Mapping[str, Any]], key: str) -> Iterator[Invalid]:
    """Every repetition of `key` among the items, as `field[i].key`."""
    seen: set[Any] = set()
    for i, item in enumerate(items):
        value = item.get(key)
        if value in (None, ''):
            continue
        if value in seen:
            yield duplicate(f'{field}[{i}].{key}', value)
        seen.add(value)
