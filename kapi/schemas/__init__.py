"""Structural schemas as data: what decodes a body, names its unknown fields, merges patches and feeds OpenAPI."""

from kapi.schemas.builtin import component_names, schema_for
from kapi.schemas.decode import DecodeError, StrictError, conform, parse_json
from kapi.schemas.openapi import components
from kapi.schemas.schema import Schema

__all__ = [
    'DecodeError',
    'Schema',
    'StrictError',
    'component_names',
    'components',
    'conform',
    'parse_json',
    'schema_for',
]
