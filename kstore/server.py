"""A store member as a process: disk and socket around `kstore.member`."""

from __future__ import annotations

import asyncio
import ssl

import structlog

from kcore.config import split_address
from kcore.env import Env
from kcore.process import Ready
from kcore.tasks import start_essential
from kstore.config import StoreConfig
from kstore.engine.disk import LmdbBackend
from kstore.engine.layers import Engine
from kstore.member import Member

log = structlog.get_logger('kstore.server')


async def run(config: StoreConfig, env: Env, ready: Ready) -> None:
    """Serve until cancelled; `ready` is called once a leader is known. Raises OSError when the address is taken."""
    env.disk.mkdir(config.data_dir)
    member = Member(config, env, Engine(LmdbBackend(config.data_dir / 'state')))
    host, port = split_address(config.listen)
    server_tls, client_tls = tls_contexts(config)
    try:
        server = await env.net.listen(member.connection, host, port, tls=server_tls)
        try:
            async with asyncio.TaskGroup() as group:
                start_essential(group, 'member', member.run(client_tls))
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


def tls_contexts(config: StoreConfig) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """For the listening socket and for dialling peers; both sides show a certificate of the CA."""
    if config.tls_cert is None or config.tls_key is None or config.tls_ca is None:
        return None, None
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(config.tls_cert, config.tls_key)
        context.load_verify_locations(config.tls_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return server, client
