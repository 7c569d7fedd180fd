"""TLS identities follow their files: real handshakes on a socket of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kcore.env import Env
from kcore.tls import BadCertificate, Identity, trouble
from kctl.local.pki import Authority, Leaf

SERVER, CLIENT = Leaf('server', 'server', serves=('127.0.0.1',)), Leaf('client', 'client')


class Echo(asyncio.Protocol):
    """Says hello, so that a client hears whether its certificate was liked."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b'hello\n')  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def listening(identity: Identity, env: Env) -> AsyncIterator[int]:
    server = await env.net.listen(Echo, '127.0.0.1', 0, tls=identity.server())
    try:
        yield server.address[1]
    finally:
        server.close()


async def handshake(port: int, identity: Identity) -> int:
    """Serial number of the server's certificate, once it has accepted ours. Raises OSError."""
    reader, writer = await asyncio.open_connection('127.0.0.1', port, ssl=identity.client())
    try:
        serial = writer.get_extra_info('ssl_object').getpeercert()['serialNumber']
        if await reader.readline() != b'hello\n':
            raise ConnectionError('closed')
        return int(serial, 16)
    finally:
        writer.close()


def made(folder: Path, name: str = 'ca') -> Authority:
    return Authority(folder, Env.real(), name=name)


async def test_a_new_certificate_is_served_at_the_next_handshake(tmp_path: Path):
    env, authority = Env.real(), made(tmp_path)
    server = Identity(env, authority.ensure(SERVER), (authority.file,))
    client = Identity(env, authority.ensure(CLIENT), (authority.file,))
    async with listening(server, env) as port:
        before = await handshake(port, client)
        assert await handshake(port, client) == before
        (tmp_path / 'server.crt').unlink()
        authority.ensure(SERVER)
        assert await handshake(port, client) != before


async def test_an_authority_that_is_taken_away_lets_nobody_in(tmp_path: Path):
    env, old, new = Env.real(), made(tmp_path / 'old'), made(tmp_path / 'new')
    trusted = tmp_path / 'trusted.crt'
    trusted.write_bytes(old.certificate_pem)
    server = Identity(env, old.ensure(SERVER), (trusted,))
    ours = Identity(env, old.ensure(CLIENT), (old.file,))
    theirs = Identity(env, new.ensure(CLIENT), (old.file,))
    async with listening(server, env) as port:
        await handshake(port, ours)
        with pytest.raises(ConnectionError):
            await handshake(port, theirs)
        trusted.write_bytes(old.certificate_pem + new.certificate_pem)
        await handshake(port, ours)
        await handshake(port, theirs)
        trusted.write_bytes(new.certificate_pem)
        await handshake(port, theirs)
        with pytest.raises(ConnectionError):
            await handshake(port, ours)


async def test_half_a_replaced_pair_keeps_the_old_one_in_service(tmp_path: Path):
    env, authority = Env.real(), made(tmp_path)
    server = Identity(env, authority.ensure(SERVER), (authority.file,))
    client = Identity(env, authority.ensure(CLIENT), (authority.file,))
    async with listening(server, env) as port:
        before = await handshake(port, client)
        other, key = authority.ensure(Leaf('other', 'server', serves=('127.0.0.1',)))
        (tmp_path / 'server.key').write_bytes(key.read_bytes())
        assert await handshake(port, client) == before
        (tmp_path / 'server.crt').write_bytes(other.read_bytes())
        assert await handshake(port, client) != before


async def test_a_server_of_another_authority_is_named_as_such(tmp_path: Path):
    env, ours, theirs = Env.real(), made(tmp_path / 'ours'), made(tmp_path / 'theirs')
    server = Identity(env, theirs.ensure(SERVER), (theirs.file,))
    async with listening(server, env) as port:
        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            await handshake(port, Identity(env, ours.ensure(CLIENT), (ours.file,)))
    assert trouble(refused.value).startswith('its certificate is not believed: ')


def test_files_that_make_no_identity_are_named(tmp_path: Path):
    env, authority = Env.real(), made(tmp_path)
    (cert, _), (_, key) = authority.ensure(SERVER), authority.ensure(CLIENT)
    with pytest.raises(BadCertificate, match=r'server\.crt and .*client\.key do not belong together'):
        Identity(env, (cert, key), (authority.file,)).server()
    (tmp_path / 'empty').write_text('')
    with pytest.raises(BadCertificate, match=r'empty: no authority in PEM form'):
        Identity(env, None, (tmp_path / 'empty',)).client()
    with pytest.raises(BadCertificate, match=r'missing: No such file'):
        Identity(env, None, (tmp_path / 'missing',)).client()


async def test_a_rotated_authority_is_believed_by_who_knows_only_the_old_one_until_it_is_forgotten(tmp_path: Path):
    env, old = Env.real(), made(tmp_path / 'pki')
    known = tmp_path / 'known.crt'  # what somebody has copied, long ago
    known.write_bytes(old.certificate_pem)
    early = old.ensure(Leaf('early', 'client'))
    server = Identity(env, old.ensure(SERVER), (old.file,))
    async with listening(server, env) as port:
        new = old.rotate()
        new.ensure(SERVER, anew=True)
        late = new.ensure(Leaf('late', 'client'))
        for pair in (early, late):
            for trust in (known, new.file):
                await handshake(port, Identity(env, pair, (trust,)))
        newest = new.forget()
        newest.ensure(SERVER, anew=True)
        await handshake(port, Identity(env, late, (newest.file,)))
        with pytest.raises(ConnectionError):
            await handshake(port, Identity(env, early, (newest.file,)))
        with pytest.raises(ssl.SSLCertVerificationError):
            await handshake(port, Identity(env, late, (known,)))
