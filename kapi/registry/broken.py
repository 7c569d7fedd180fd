"""The words of a 422: one constructor per way in which a field can be wrong.

Source of texts: apimachinery/pkg/util/validation/field/errors.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from kapi.registry.strategy import Invalid


def shown(value: Any) -> str:
    """A value as error texts print it: strings quoted, structures as JSON."""
    return orjson.dumps(value, default=str).decode()


def required(field: str, detail: str = '') -> Invalid:
    return Invalid(field, f'Required value: {detail}' if detail else 'Required value', 'FieldValueRequired')


def invalid(field: str, value: Any, detail: str) -> Invalid:
    return Invalid(field, f'Invalid value: {shown(value)}: {detail}', 'FieldValueInvalid')


def not_supported(field: str, value: Any, supported: Iterable[str]) -> Invalid:
    known = ', '.join(f'"{s}"' for s in sorted(supported))
    return Invalid(field, f'Unsupported value: {shown(value)}: supported values: {known}', 'FieldValueNotSupported')


def forbidden(field: str, detail: str) -> Invalid:
    return Invalid(field, f'Forbidden: {detail}', 'FieldValueForbidden')


def duplicate(field: str, value: Any) -> Invalid:
    return Invalid(field, f'Duplicate value: {shown(value)}', 'FieldValueDuplicate')


def not_found(field: str, value: Any) -> Invalid:
    return Invalid(field, f'Not found: {shown(value)}', 'FieldValueNotFound')


def too_long(field: str, limit: int) -> Invalid:
    return Invalid(field, f'Too long: may not be more than {limit} bytes', 'FieldValueTooLong')


def too_many(field: str, count: int, limit: int) -> Invalid:
    return Invalid(field, f'Too many: {count}: must have at most {limit} items', 'FieldValueTooMany')
