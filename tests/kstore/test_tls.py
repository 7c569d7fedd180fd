"""Mutual TLS between members and with clients: a store works over it, and strangers do not get in."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kcore.env import Env
from kcore.tls import ClientTls, Identity
from kstore.errors import Unreachable

Stores = Callable[..., Awaitable[Any]]


class Authority:
    """A certificate authority and what it signs, as PEM files in one directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.ca = directory / f'{name}.crt'
        self.ca.write_bytes(self._sign(self._name, self._key, ca=True).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key for 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert, secret = self._directory / f'{name}.crt', self._directory / f'{name}.key'
        cert.write_bytes(self._sign(subject, key, ca=False).public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert, secret

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        now = datetime(2024, 1, 1, tzinfo=UTC)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address('127.0.0.1'))])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=36_500))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(names, critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())

    def client(self, pair: tuple[Path, Path] | None) -> ClientTls:
        context = ssl.create_default_context(cafile=str(self.ca))
        if pair is not None:
            context.load_cert_chain(*pair)
        return lambda: context


async def test_three_members_and_their_clients_speak_only_tls(stores: Stores, tmp_path: Path):
    ours, theirs = Authority(tmp_path, 'ours'), Authority(tmp_path, 'theirs')
    cert, key = ours.issue('member')
    store = await stores(3, tls_cert=cert, tls_key=key, tls_ca=ours.ca)
    client = await store.client(tls=ours.client(ours.issue('client')), deadline_s=30.0)
    await client.put(b'/a', b'1')
    leader = (await client.status())['leader']
    follower = await store.client(
        endpoints=[store.endpoints[leader % 3]], tls=ours.client(ours.issue('other')), follow_leader=False
    )
    assert (await follower.get(b'/a')).kv.value == b'1'  # by way of the leader
    trusting = ours.client(theirs.issue('stranger'))
    for stranger in (trusting, ours.client(None), None):
        refused = await store.client(tls=stranger, deadline_s=0.5)
        with pytest.raises(Unreachable):
            await refused.get(b'/a')
    await client.put(b'/a', b'2')


async def test_who_is_not_believed_is_told_why(stores: Stores, tmp_path: Path):
    ours, theirs = Authority(tmp_path, 'ours'), Authority(tmp_path, 'theirs')
    cert, key = ours.issue('member')
    store = await stores(1, tls_cert=cert, tls_key=key, tls_ca=ours.ca)
    stranger = ours.client(theirs.issue('stranger'))
    with pytest.raises(Unreachable, match='does not believe our certificate'):
        await (await store.client(tls=stranger, deadline_s=0.5)).get(b'/a')
    with pytest.raises(Unreachable, match='its certificate is not believed'):
        await (await store.client(tls=theirs.client(theirs.issue('naive')), deadline_s=0.5)).get(b'/a')


async def test_members_go_on_with_new_certificates_of_a_new_authority(stores: Stores, tmp_path: Path):
    old, new = Authority(tmp_path, 'old'), Authority(tmp_path, 'new')
    cert, key = old.issue('member')
    trusted = tmp_path / 'trusted.crt'
    trusted.write_bytes(old.ca.read_bytes())
    store = await stores(3, tls_cert=cert, tls_key=key, tls_ca=trusted)
    client = await store.client(tls=Identity(Env.real(), (cert, key), (trusted,)).client, deadline_s=30.0)
    await client.put(b'/a', b'1')
    trusted.write_bytes(new.ca.read_bytes() + old.ca.read_bytes())
    for target, source in zip((key, cert), reversed(new.issue('renewed')), strict=True):
        target.write_bytes(source.read_bytes())
    trusted.write_bytes(new.ca.read_bytes())
    for i in (1, 2, 3):  # every connection is made anew, one member at a time
        await store.kill(i)
        await store.start(i)
        await client.put(b'/a', b'2')
    stranger = await store.client(tls=old.client(old.issue('late')), deadline_s=0.5)
    with pytest.raises(Unreachable):
        await stranger.get(b'/a')
