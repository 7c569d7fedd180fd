"""The use of tokens from Secrets, noted by the day in a label of the Secret; the controller manager cleans up after it.

Source: pkg/serviceaccount/legacy.go (patchSecretWithLastUsedDate).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from kapi.authn.user import SYSTEM
from kapi.errors import ApiError
from kapi.registry.store import Write
from kapi.storage.base import StorageError
from kcore.meta.tokensecrets import LAST_USED, day

if TYPE_CHECKING:
    from kapi.server.service import ApiServer

Obj = dict[str, Any]
log = structlog.get_logger('kapi.authn')


async def note_use(server: ApiServer, secret: Obj) -> None:
    """Writes at most once a day; a token is no worse when that fails."""
    now, meta = server.env.clock.wall(), secret['metadata']
    known = day(now), day(now + timedelta(days=1))  # tomorrow, where the clock of another server is
    kind = server.catalog.find('', 'v1', 'secrets')
    if kind is None or (meta.get('labels') or {}).get(LAST_USED) in known:
        return

    async def transform(old: Obj) -> Obj:
        labels = old['metadata'].get('labels') or {}
        if labels.get(LAST_USED) in known:
            return old
        return {**old, 'metadata': {**old['metadata'], 'labels': {**labels, LAST_USED: known[0]}}}

    try:
        await server.registry.update(kind, meta['namespace'], meta['name'], transform, Write(SYSTEM))
    except (ApiError, StorageError) as e:
        log.warning('the use of a token was not noted', secret=f'{meta["namespace"]}/{meta["name"]}', err=str(e))
