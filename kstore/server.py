"""A store member as a process: disk and socket around `kstore.member`."""

from __future__ import annotations

import asyncio

import structlog

from kcore.config import split_address
from kcore.env import Env
from kcore.process import Ready
from kcore.tasks import start_essential
from kcore.tls import Identity
from kstore.config import StoreConfig
from kstore.datadir import claim, hold
from kstore.engine.disk import LmdbBackend
from kstore.engine.layers import Engine
from kstore.member import Member

log = structlog.get_logger('kstore.server')


async def run(config: StoreConfig, env: Env, ready: Ready) -> None:
    """Serve until cancelled; `ready` is called once a leader is known.

    Raises OSError when the address is taken, Refused when the data directory is in use, or another member's.
    """
    env.disk.mkdir(config.data_dir)
    with hold(config.data_dir):
        claim(config.data_dir, env.disk, config.id)
        await _serve(config, env, ready)


async def _serve(config: StoreConfig, env: Env, ready: Ready) -> None:
    member = Member(config, env, Engine(LmdbBackend(config.data_dir / 'state')))
    host, port = split_address(config.listen)
    identity = tls_identity(config, env)
    listening, dialling = (identity.server(), identity.client) if identity is not None else (None, None)
    try:
        server = await env.net.listen(member.connection, host, port, tls=listening)
        try:
            async with asyncio.TaskGroup() as group:
                start_essential(group, 'member', member.run(dialling))
                if config.http is not None:
                    from kstore.http import serve  # noqa: PLC0415 — the HTTP stack is not loaded for nothing

                    start_essential(group, 'http', serve(member, config.http))
                log.info('store member serving', member=config.id, listen=config.listen, rv=member.store.revision)
                await member.led.wait()
                ready()
        finally:
            server.close()
    finally:
        await member.close()


def tls_identity(config: StoreConfig, env: Env) -> Identity | None:
    """Ours towards clients and peers; all of them show a certificate of the CA. Raises BadCertificate."""
    if config.tls_cert is None or config.tls_key is None or config.tls_ca is None:
        return None
    return Identity(env, (config.tls_cert, config.tls_key), (config.tls_ca,))
