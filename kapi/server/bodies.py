"""Request bodies: read up to a limit, then JSON or YAML into a dict. Broken input is a 400 that says where."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from kapi.errors import BadRequest, TooLarge
from kapi.schemas import decode
from kapi.schemas.schema import Pairs
from kapi.server import yamlbody
from kapi.server.context import Context
from kapi.server.negotiation import JSON, YAML

Obj = dict[str, Any]

BODY_BYTES_MAX = 3 * 1024 * 1024
"""Upstream's limit on a resource request body; beyond it is 413."""
YAML_BYTES_MAX = 64 * 1024
"""Of YAML that the loop reads itself: some ten milliseconds."""


async def read_body(ctx: Context) -> bytes:
    """Raises TooLarge as soon as the limit is passed."""
    data = await _read(ctx.raw)
    if ctx.audit.request_body:
        ctx.audit_body = data
    return data


async def _read(request: web.BaseRequest) -> bytes:
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise TooLarge(f'Request entity too large: limit is {BODY_BYTES_MAX}')
    if not request.can_read_body:
        return b''
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if size > BODY_BYTES_MAX:
                raise TooLarge(f'Request entity too large: limit is {BODY_BYTES_MAX}')
            chunks.append(chunk)
    except web.RequestPayloadError as e:
        raise BadRequest(f'the body of the request is broken: {" ".join(str(e).split())}') from None
    return chunks[0] if len(chunks) == 1 else b''.join(chunks)


def parse_json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as e:
        raise BadRequest(f"couldn't get version/kind; json parse error: {e}") from None


def parse_yaml(data: bytes) -> tuple[Any, str]:
    """(JSON-like value of one YAML document, what a strict reader says of its repeated keys). Raises BadRequest."""
    try:
        found, repeated = yamlbody.read(data)
    except yamlbody.NotYaml as e:
        raise BadRequest(f'error converting YAML to JSON: yaml: {e}') from None
    return found, '\n  '.join(('yaml: unmarshal errors:', *repeated)) if repeated else ''


def parse_object(data: bytes, media: str) -> tuple[Obj, str]:
    """A body that must be one object, and what `parse_yaml` says of repeated keys. Raises BadRequest."""
    if media == YAML and (plain := _plain_json(data)) is not None:
        return plain, ''
    value, told = parse_yaml(data) if media == YAML else (parse_json(data), '')
    if media == YAML:
        try:
            value = orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
        except TypeError as e:
            raise BadRequest(f'error converting YAML to JSON: {e}') from None
    if not isinstance(value, dict):
        raise BadRequest(f"couldn't get version/kind; json parse error: expected an object, got {_json_name(value)}")
    return value, told


def _plain_json(data: bytes) -> Obj | None:
    """YAML that is JSON with no key repeated, as kubectl applies it: read a hundred times as fast."""
    if not data.startswith(b'{'):
        return None
    try:
        found = decode.parse_json(data)
    except decode.DecodeError:
        return None
    return None if isinstance(found, Pairs) else found


async def parsed(ctx: Context, data: bytes, media: str) -> tuple[Obj, str]:
    """As `parse_object`, beside the loop where that takes its time."""
    if media == YAML and len(data) > YAML_BYTES_MAX:
        return await ctx.server.env.disk.offload(parse_object, data, media)
    return parse_object(data, media)


def _json_name(value: Any) -> str:
    names = {list: 'array', str: 'string', bool: 'boolean', type(None): 'null'}
    return names.get(type(value), 'number')


__all__ = ['BODY_BYTES_MAX', 'JSON', 'parse_json', 'parse_object', 'parse_yaml', 'parsed', 'read_body']
