"""From the bytes of a request body to an object that its schema knows, or to the text of a 400.

`Strict` refuses unknown and duplicate fields, `Warn` drops them and tells, `Ignore` drops them. A wrong type is always
refused. Source: apimachinery/pkg/runtime/serializer/json, apiserver endpoints/handlers/create.go.
"""

from __future__ import annotations

import json
from typing import Any, Literal

import orjson

from kapi.schemas.schema import Pairs, Schema

Validation = Literal['Strict', 'Warn', 'Ignore']
Obj = dict[str, Any]

MAX_DEPTH = 254
"""Nesting of objects and lists in a body; the encoder's own bound, so deeper ones could never be stored."""


class DecodeError(ValueError):
    """The body is not an object of this kind (400); the text is upstream's."""


class StrictError(DecodeError):
    """Unknown or duplicate fields under `Strict` (400 on create and update, 422 on patch)."""

    def __init__(self, message: str, errors: list[str]) -> None:
        super().__init__(message)
        self.errors = errors


def parse_json(body: bytes) -> Obj:
    """A JSON object; one that repeats a key comes back as `Pairs`. Raises DecodeError."""
    try:
        obj = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise DecodeError(f'json parse error: {error}') from None
    if not isinstance(obj, dict):
        raise DecodeError('json parse error: the body must be a JSON object')
    # Re-encoding is shorter than a compact body that repeats a key; anything else merely costs the slower look.
    try:
        same = len(orjson.dumps(obj)) == len(body)
    except orjson.JSONEncodeError:
        raise DecodeError(f'json parse error: nested deeper than {MAX_DEPTH} levels') from None
    if same:
        return obj
    return _with_duplicates(body) or obj


def _with_duplicates(body: bytes) -> Obj | None:
    """The object as `Pairs` when any key is repeated in it, else None."""
    repeated = False

    def remember(pairs: list[tuple[str, Any]]) -> Obj:
        nonlocal repeated
        made = Pairs(pairs)
        repeated = repeated or len(made) != len(pairs)
        return made

    try:
        obj: Obj = json.loads(body, object_pairs_hook=remember)
    except (ValueError, RecursionError):
        return None
    return obj if repeated else None


def conform(obj: Obj, schema: Schema, validation: Validation = 'Warn', told: str = '') -> tuple[Obj, list[str]]:
    """The object fit for the registry, and warnings for its sender.

    `told` is what a strict parser found wrong before. `obj` may be changed in place.
    Raises DecodeError on a wrong type, StrictError on unknown or duplicate fields.
    """
    if not isinstance(obj, Pairs) and not told and schema.is_valid(obj):
        return obj, []
    try:
        found = schema.inspect(obj)
        if found.type_error:
            raise DecodeError(_cannot(schema, found.type_error))
        strict = [told, *found.strict] if told else found.strict
        if strict and validation == 'Strict':
            raise StrictError(_cannot(schema, f'strict decoding error: {", ".join(strict)}'), strict)
        plain: Obj = orjson.loads(orjson.dumps(obj)) if isinstance(obj, Pairs) else obj
        if found.strict:
            schema.prune(plain)
        schema.drop_nulls(plain)
    except RecursionError:
        raise DecodeError(_cannot(schema, 'json: exceeded max depth')) from None
    return plain, strict if validation == 'Warn' else []


def _cannot(schema: Schema, why: str) -> str:
    return f'{schema.kind} in version "{schema.version}" cannot be handled as a {schema.kind}: {why}'
