"""Control loops of priority and fairness: keep the cluster's objects, tell of schemas that lead nowhere, lend seats."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

from kapi.authn.user import SYSTEM
from kapi.errors import ApiError, NotFound
from kapi.flow.demand import ADJUSTMENT_S
from kapi.flow.fairness import LEVEL_PREFIX, SCHEMA_PREFIX
from kapi.flow.objects import tell_dangling, told
from kapi.registry.options import WriteOptions
from kapi.registry.store import Write
from kapi.server import bootstrap
from kapi.storage.base import StorageError
from kapi.storage.watchers import Overflow

if TYPE_CHECKING:
    from kapi.server.service import ApiServer

Obj = dict[str, Any]
log = structlog.get_logger('kapi.flow')

ENSURE_S = 60.0
"""Objects of the cluster that somebody has deleted or changed are as they should be after that time."""
MANAGER = 'api-priority-and-fairness-config-consumer-v1'


async def lend(server: ApiServer) -> NoReturn:
    while True:
        await asyncio.sleep(ADJUSTMENT_S)
        server.fairness.adjust()


async def keep(server: ApiServer) -> NoReturn:
    """Look at all schemas whenever a schema or level changes, and now and then at the cluster's own objects."""
    cache = server.cache
    while True:
        changed = asyncio.Event()
        watchers = [(p, cache.subscribe(p, p, cache.revision, None)) for p in (SCHEMA_PREFIX, LEVEL_PREFIX)]
        try:
            async with asyncio.TaskGroup() as group:
                for _, watcher in watchers:
                    group.create_task(_signal(watcher.take, changed), name='flow watch')
                while True:
                    changed.clear()
                    await _tell(server)
                    try:
                        async with asyncio.timeout(ENSURE_S):
                            await changed.wait()
                    except TimeoutError:
                        await bootstrap.ensure_flows(server)
        except* Overflow:
            log.info('flow schemas are read again')
        finally:
            for prefix, watcher in watchers:
                cache.unsubscribe(prefix, prefix, watcher)


async def _signal(take: Any, changed: asyncio.Event) -> NoReturn:
    while True:
        await take()
        changed.set()


async def _tell(server: ApiServer) -> None:
    """Bring the condition of each schema up to date."""
    kind = server.catalog.find(bootstrap.FLOW_GROUP, 'v1', 'flowschemas')
    if kind is None:
        return
    levels = {key.removeprefix(LEVEL_PREFIX) for key in server.cache.resource(LEVEL_PREFIX).keys}
    now = server.env.clock.wall()

    async def change(old: Obj) -> Obj:
        return tell_dangling(old, levels, now)

    write = Write(SYSTEM, WriteOptions(field_manager=MANAGER), subresource='status')
    for entry in list(server.cache.resource(SCHEMA_PREFIX).entries.values()):
        if told(entry.obj, levels):
            continue
        name = entry.obj['metadata']['name']
        try:
            await server.registry.update(kind, '', name, change, write)
        except NotFound:
            continue  # gone meanwhile
        except (ApiError, StorageError) as e:
            log.warning('the condition of a flow schema was not written', schema=name, err=str(e))
