"""Server-side apply: PATCH with `application/apply-patch+yaml`."""

from __future__ import annotations

from kapi.errors import UnsupportedMediaType
from kapi.registry.kind import Kind
from kapi.server.context import Context, Reply


async def apply(ctx: Context, kind: Kind) -> Reply:
    raise UnsupportedMediaType('server-side apply is not served for this kind')
