"""From a request body to an object of the kind that the URL names, with the strictness that was asked for."""

from __future__ import annotations

from typing import Any

from kapi.errors import BadRequest
from kapi.registry.kind import Kind
from kapi.registry.options import Validation, WriteOptions
from kapi.server.bodies import parsed, read_body
from kapi.server.context import Context
from kapi.server.negotiation import JSON, PROTOBUF, body_media

Obj = dict[str, Any]


async def read_object(
    ctx: Context, kind: Kind, options: WriteOptions, *, what: Kind | None = None, alike: str = ''
) -> Obj:
    """The request's body as an object of `what` (default `kind`). Raises BadRequest, UnsupportedMediaType, TooLarge.

    `alike` is another version of it that says the same.
    """
    media = body_media(ctx.raw.headers.get('Content-Type', ''))
    data = await read_body(ctx)
    target, told = what or kind, ''
    if media == PROTOBUF:
        obj = ctx.server.schemas.decode_protobuf(data)
    elif media == JSON:
        obj = ctx.server.schemas.parse_json(data, target.resource.kind)
    else:
        obj, told = await parsed(ctx, data, media)
    if not ctx.server.is_builtin(target):
        _says_what_it_is(target, obj, data)
    if alike and obj.get('apiVersion') == alike:
        obj['apiVersion'] = target.resource.api_version
    check_type(target, obj)
    return conform(ctx, target, obj, options.field_validation, told=told)


def _says_what_it_is(kind: Kind, obj: Obj, data: bytes) -> None:
    """A custom resource must name its kind and version; a built-in one's follow from the URL. Raises BadRequest."""
    r = kind.resource
    if not obj.get('kind'):
        raise BadRequest(
            f'{r.kind} in version "{r.version}" cannot be handled as a {r.kind}: '
            f"Object 'Kind' is missing in '{data.decode(errors='replace')}'"
        )
    if not obj.get('apiVersion'):
        raise BadRequest(f'the API version in the data () does not match the expected API version ({r.api_version})')


def check_type(kind: Kind, obj: Obj) -> None:
    """apiVersion and kind, where given, must be the URL's; fills them in. Raises BadRequest."""
    r = kind.resource
    version, name = obj.get('apiVersion'), obj.get('kind')
    if version and version != r.api_version:
        raise BadRequest(
            f'the API version in the data ({version}) does not match the expected API version ({r.api_version})'
        )
    if name and name != r.kind:
        raise BadRequest(
            f'{name} in version "{r.version}" cannot be handled as a {r.kind}: '
            f'the kind in the data ({name}) does not match the expected kind ({r.kind})'
        )
    obj['apiVersion'], obj['kind'] = r.api_version, r.kind


def conform(
    ctx: Context, kind: Kind, obj: Obj, validation: Validation, *, patched: bool = False, told: str = ''
) -> Obj:
    """Types always; unknown and duplicate fields as `validation` says. The result has a `metadata` map.

    `told` is what the parser has already found wrong.

    Raises BadRequest; InvalidObject for unknown fields that came in by a patch, as upstream does.
    """
    fine, warnings = ctx.server.schemas.conform(kind.resource, obj, validation, patched=patched, told=told)
    ctx.warnings.extend(warnings)
    if fine.get('metadata') is None:
        fine['metadata'] = {}
    if not isinstance(fine['metadata'], dict):
        r = kind.resource
        raise BadRequest(
            f'{r.kind} in version "{r.version}" cannot be handled as a {r.kind}: json: cannot unmarshal '
            f'into Go struct field {r.kind}.metadata of type v1.ObjectMeta'
        )
    return fine
