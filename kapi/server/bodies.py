"""Request bodies: read up to a limit, then JSON or YAML into a dict. Broken input is a 400 that says where."""

from __future__ import annotations

from typing import Any

import orjson
import yaml
from aiohttp import web

from kapi.errors import BadRequest, TooLarge
from kapi.server.context import Context
from kapi.server.negotiation import JSON, YAML

Obj = dict[str, Any]

BODY_BYTES_MAX = 3 * 1024 * 1024
"""Upstream's limit on a resource request body; beyond it is 413."""
YAML_NODES_MAX = 1_000_000
"""Values of a YAML document with its aliases written out; beyond it is 400 (an alias bomb)."""


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


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: timestamps stay text, repeated keys are remembered."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.repeated: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == '<<':
                continue
            if key.value in seen:
                self.repeated.append(f'line {value.start_mark.line + 1}: key "{key.value}" already set in map')
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != 'tag:yaml.org,2002:timestamp']
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(data: bytes) -> tuple[Any, str]:
    """(JSON-like value of one YAML document, what a strict reader says of its repeated keys). Raises BadRequest."""
    loader: _Loader | None = None
    try:
        loader = _Loader(data)
        found = loader.get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        text = ' '.join(str(e).split())
        raise BadRequest(f'error converting YAML to JSON: yaml: {text}') from None
    finally:
        if loader is not None:
            loader.dispose()
    _count(found, {})
    told = '\n  '.join(('yaml: unmarshal errors:', *loader.repeated)) if loader.repeated else ''
    return found, told


def _count(value: Any, seen: dict[int, int]) -> int:
    """Nodes with aliases written out. Raises BadRequest beyond the limit, or for a value that contains itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) in seen:
        size = seen[id(value)]
    else:
        seen[id(value)] = YAML_NODES_MAX + 1  # a cycle meets this
        try:
            size = 1 + sum(_count(v, seen) for v in (value.values() if isinstance(value, dict) else value))
        except RecursionError:
            raise BadRequest('error converting YAML to JSON: yaml: nested too deeply') from None
        seen[id(value)] = size
    if size > YAML_NODES_MAX:
        raise BadRequest('error converting YAML to JSON: yaml: document contains excessive aliasing')
    return size


def parse_object(data: bytes, media: str) -> tuple[Obj, str]:
    """A body that must be one object, and what `parse_yaml` says of repeated keys. Raises BadRequest."""
    value, told = parse_yaml(data) if media == YAML else (parse_json(data), '')
    if media == YAML:
        try:
            value = orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
        except TypeError as e:
            raise BadRequest(f'error converting YAML to JSON: {e}') from None
    if not isinstance(value, dict):
        raise BadRequest(f"couldn't get version/kind; json parse error: expected an object, got {_json_name(value)}")
    return value, told


def _json_name(value: Any) -> str:
    names = {list: 'array', str: 'string', bool: 'boolean', type(None): 'null'}
    return names.get(type(value), 'number')


__all__ = ['BODY_BYTES_MAX', 'JSON', 'parse_json', 'parse_object', 'parse_yaml', 'read_body']
