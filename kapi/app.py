"""The API server as a process: storage open, cache loaded, first objects ensured, HTTPS listening."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from typing import NoReturn

import structlog
from aiohttp import web

from kapi.config import ApiConfig
from kapi.server import bootstrap
from kapi.server.listener import Door, Listener
from kapi.server.service import ApiServer
from kapi.storage.base import StorageUnavailable
from kapi.storage.encryption import KEYS_LOOK_S, EncryptedStorage, encrypted
from kapi.storage.urls import open_storage
from kcore import tasks
from kcore.config import split_address
from kcore.env import Env
from kcore.process import Ready
from kcore.tls import Identity

log = structlog.get_logger('kapi')

KEEPALIVE_S = 90.0
"""Idle connections stay open this long (upstream's figure); clients close theirs earlier or try again."""
SHUTDOWN_S = 2.0
"""How long open requests may finish at an orderly stop; watches are cut at once."""
STORAGE_RETRY_S = 0.2
HEADER_BYTES_MAX = 64 * 1024
"""One header line and the request line; beyond is 400."""


def tls_context(config: ApiConfig, env: Env) -> ssl.SSLContext:
    """Serves with our certificate; asks for client certificates of the client CA but does not insist.

    Raises BadCertificate.
    """
    proxies = config.requestheader_client_ca_file
    return Identity(
        env, (config.tls_cert, config.tls_key), (config.client_ca, *((proxies,) if proxies is not None else ())),
        client_certificates=ssl.CERT_OPTIONAL, protocols=('http/1.1',),
    ).server()  # fmt: skip


async def run(config: ApiConfig, env: Env, ready: Ready) -> None:
    """Serve until cancelled. Raises OSError when the address is taken or a certificate cannot be read."""
    tls = tls_context(config, env)
    storage = encrypted(open_storage(config.storage, env), config.encryption_key_file, env)
    server = ApiServer(config, env, storage)
    try:
        await _start_cache(server)
        async with asyncio.TaskGroup() as group:
            tasks.start_essential(group, 'watch cache', server.cache.run())
            await _bootstrap(server)
            if isinstance(storage, EncryptedStorage):
                tasks.start_restarting(group, 'reseal secrets', partial(_keep_sealed, storage), env)
            for name, background in server.background():
                tasks.start_restarting(group, name, background, env)
            await _serve(server, tls, ready)
    finally:
        await server.close()


async def _start_cache(server: ApiServer) -> None:
    while True:
        try:
            return await server.cache.start()
        except StorageUnavailable as e:
            log.info('storage was not reached yet', err=str(e))
            await asyncio.sleep(STORAGE_RETRY_S)


async def _bootstrap(server: ApiServer) -> None:
    while True:
        try:
            return await bootstrap.bootstrap(server)
        except StorageUnavailable as e:
            log.info('first objects were not written yet', err=str(e))
            await asyncio.sleep(STORAGE_RETRY_S)


async def _keep_sealed(storage: EncryptedStorage) -> NoReturn:
    """Secrets are sealed by the first key, at the start and whenever the keys change."""
    while True:
        try:
            if storage.reseal_is_due:
                await storage.reseal()
            await asyncio.sleep(KEYS_LOOK_S)
        except StorageUnavailable as e:
            log.info('secrets were not sealed anew yet', err=str(e))
            await asyncio.sleep(STORAGE_RETRY_S)


async def _serve(server: ApiServer, tls: ssl.SSLContext, ready: Ready) -> NoReturn:
    config = server.config
    low_level = Listener(
        server.handle, keepalive_timeout=KEEPALIVE_S, max_line_size=HEADER_BYTES_MAX, max_field_size=HEADER_BYTES_MAX,
        access_log=None, turns=server.fairness.turns,
    )  # fmt: skip
    runner = web.ServerRunner(low_level, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    host, port = split_address(config.listen)
    door = Door(low_level, tls, server.fairness.turns)
    try:
        address = config.advertise or f'{host}:{await door.open(host, port)}'
        async with asyncio.TaskGroup() as group:
            tasks.start_essential(group, 'door', door.run())
            log.info('serving', address=address, rv=server.cache.revision)
            ready()
            try:
                await bootstrap.keep_endpoints(server, address)
            finally:
                await bootstrap.leave(server, address)
        raise AssertionError('unreachable')
    finally:
        await runner.cleanup()
