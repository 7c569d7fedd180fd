"""The cluster's certificates: one authority, one key pair a component, made once and kept in `<data>/pki`.

ECDSA P-256 throughout: a key costs a fraction of a millisecond, so that even a first start does not wait for it.
Names and groups follow kubeadm: the common name is the user, each organization a group.
Source: kubernetes.io/docs/setup/best-practices/certificates.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kclient.certificates import alternative_names, key_pem, new_key, subject
from kcore.env import Env
from kctl.local.layout import ClusterError

AUTHORITY_YEARS = 10
LEAF_DAYS = 365
RENEW_BEFORE_DAYS = 30
"""A leaf this close to its end is made anew at the next start."""
BACKDATE = timedelta(minutes=5)
"""Tolerated difference between two machines' clocks."""

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True, slots=True)
class Leaf:
    """One key pair to have: file name, user, groups, and the names and addresses that it serves under."""

    name: str
    user: str
    groups: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()


class Authority:
    """One certificate authority, `<folder>/<name>.crt`: the cluster's own, or the one of its front proxies."""

    def __init__(self, folder: Path, env: Env, *, name: str = 'ca', common_name: str = 'kubernetes') -> None:
        self._folder = folder
        self._env = env
        self.file = folder / f'{name}.crt'
        """Who is believed: this authority, and after a rotation the ones before it, until they are forgotten."""
        self._key_file = folder / f'{name}.key'
        self._bridge_file = folder / f'{name}-bridge.crt'
        self._common_name = common_name
        env.disk.mkdir(folder)
        if not env.disk.exists(self.file):
            self._create(common_name)
        self.certificate_pem = env.disk.read(self.file)
        try:
            certificates = x509.load_pem_x509_certificates(self.certificate_pem)
            key = serialization.load_pem_private_key(env.disk.read(self._key_file), None)
        except (ValueError, FileNotFoundError) as e:
            raise ClusterError(f'the authority {self.file} is damaged ({e}); restore it and its key.') from e
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ClusterError(f'{self._key_file} is not an EC key.')
        self._key = key
        own = self._about_us(certificates)
        if own is None:
            raise ClusterError(f'{self._key_file} does not belong to {self.file}; restore both.')
        self._certificate = own
        bridge = env.disk.read(self._bridge_file) if env.disk.exists(self._bridge_file) else b''
        # A rotation that was cut short may have left a bridge to an authority that never came to be.
        self._bridge = bridge if bridge and self._about_us(x509.load_pem_x509_certificates(bridge)) else b''

    def _about_us(self, certificates: Sequence[x509.Certificate]) -> x509.Certificate | None:
        return next((c for c in certificates if c.public_key() == self._key.public_key()), None)

    def rotate(self) -> Authority:
        """A new key for the same name. What the old one has signed stays good until `forget`.

        The old key's last deed is a bridge: a certificate of the new authority that goes with every new leaf, so that
        whoever knows only the old one believes the new leaves too. Then it is thrown away.
        """
        key = new_key()
        bridge = self._authority(key, self._certificate.subject, self._key)
        root = self._authority(key, self._certificate.subject, key)
        disk = self._env.disk
        disk.replace(self._bridge_file, _pem(bridge), mode=0o644)
        disk.replace(self.file, _pem(root) + self.certificate_pem, mode=0o644)
        disk.replace(self._key_file, key_pem(key))  # last: the key says which of the authorities signs
        return Authority(self._folder, self._env, name=self.file.stem, common_name=self._common_name)

    def forget(self) -> Authority:
        """Believe only the newest authority from now on."""
        self._env.disk.replace(self.file, _pem(self._certificate), mode=0o644)
        self._env.disk.remove(self._bridge_file)
        return Authority(self._folder, self._env, name=self.file.stem, common_name=self._common_name)

    def _create(self, common_name: str) -> None:
        key = new_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        # The key first: a crash in between leaves no certificate without its key.
        self._env.disk.replace(self._key_file, key_pem(key))
        self._env.disk.replace(self.file, _pem(self._authority(key, name, key)), mode=0o644)

    def _authority(
        self, key: ec.EllipticCurvePrivateKey, name: x509.Name, signer: ec.EllipticCurvePrivateKey
    ) -> x509.Certificate:
        """An authority's certificate, by itself or by the one before it."""
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        builder = (
            self._builder(name, name, key, timedelta(days=365 * AUTHORITY_YEARS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        return builder.sign(signer, hashes.SHA256())

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: timedelta
    ) -> x509.CertificateBuilder:
        now = self._env.clock.wall()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + lifetime)
        )

    def ensure(self, leaf: Leaf, *, anew: bool = False) -> tuple[Path, Path]:
        """Certificate and key files of `leaf`, made now unless good ones exist and `anew` does not say otherwise."""
        certificate, key = self._folder / f'{leaf.name}.crt', self._folder / f'{leaf.name}.key'
        if anew or not self._good(certificate, key, leaf):
            self._issue(leaf, certificate, key)
        return certificate, key

    def _good(self, certificate: Path, key: Path, leaf: Leaf) -> bool:
        if not (self._env.disk.exists(certificate) and self._env.disk.exists(key)):
            return False
        try:
            have = x509.load_pem_x509_certificate(self._env.disk.read(certificate))
        except ValueError:  # damaged: a leaf is cheap
            return False
        if not self._signed(have):
            return False
        left = have.not_valid_after_utc - self._env.clock.wall()
        return left > timedelta(days=RENEW_BEFORE_DAYS) and have.subject == _subject(leaf) and _serves(have, leaf)

    def _signed(self, have: x509.Certificate) -> bool:
        """Whether it is ours: somebody may have exchanged the authority."""
        try:
            have.verify_directly_issued_by(self._certificate)
        except (ValueError, InvalidSignature):
            return False
        return True

    def _issue(self, leaf: Leaf, certificate: Path, key_file: Path) -> None:
        key = new_key()
        issuer = self._certificate.subject
        builder = (
            self._builder(_subject(leaf), issuer, key, timedelta(days=LEAF_DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([SERVER, CLIENT] if leaf.serves else [CLIENT]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if leaf.serves:
            builder = builder.add_extension(alternative_names(leaf.serves), critical=False)
        self._env.disk.replace(key_file, key_pem(key))
        chain = _pem(builder.sign(self._key, hashes.SHA256())) + self._bridge
        self._env.disk.replace(certificate, chain, mode=0o644)

    def signing_key(self, name: str) -> Path:
        """A file of keys for service account tokens, made now unless it exists: the first signs, all are believed."""
        file = self._folder / f'{name}.key'
        if not self._env.disk.exists(file):
            self._env.disk.replace(file, key_pem(new_key()))
        return file

    def renew_signing_key(self, name: str) -> None:
        """A new key signs; tokens of those before it stay good."""
        file = self.signing_key(name)
        self._env.disk.replace(file, key_pem(new_key()) + self._env.disk.read(file))

    def forget_signing_keys(self, name: str) -> None:
        """Only tokens of the key that signs now are good."""
        file = self.signing_key(name)
        first, end, _ = self._env.disk.read(file).partition(b'-----END PRIVATE KEY-----\n')
        self._env.disk.replace(file, first + end)

    def secret_keys(self, name: str) -> Path:
        """A file of keys for encryption at rest: `<key name> <base64>` a line, the first one encrypts."""
        file = self._folder / name
        if not self._env.disk.exists(file):
            self._env.disk.replace(file, _secret_key(1))
        return file

    def renew_secret_keys(self, name: str) -> None:
        """A new key encrypts. Those before it stay: only the API servers know when nothing needs them any more."""
        file = self.secret_keys(name)
        lines = self._env.disk.read(file)
        numbers = [int(n) for n in re.findall(rb'^key-(\d+) ', lines, re.MULTILINE)]
        self._env.disk.replace(file, _secret_key(max(numbers, default=0) + 1) + lines)


def _secret_key(number: int) -> bytes:
    return f'key-{number} {base64.b64encode(AESGCM.generate_key(bit_length=256)).decode()}\n'.encode()


def _subject(leaf: Leaf) -> x509.Name:
    return subject(leaf.user, leaf.groups)


def _serves(have: x509.Certificate, leaf: Leaf) -> bool:
    if not leaf.serves:
        return True
    try:
        extension = have.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return False
    return set(alternative_names(leaf.serves)) <= set(extension.value)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def kubeconfig(
    servers: Sequence[str], authority_pem: bytes, certificate_pem: bytes, key_pem: bytes, user: str
) -> bytes:
    """A kubeconfig with everything inline: context `kubeling` for the first server, `kubeling-2`, … for the others."""

    def encode(pem: bytes) -> str:
        return base64.b64encode(pem).decode()

    names = ['kubeling', *(f'kubeling-{n}' for n in range(2, len(servers) + 1))]
    document: dict[str, Any] = {
        'apiVersion': 'v1',
        'kind': 'Config',
        'current-context': names[0],
        'clusters': [
            {'name': name, 'cluster': {'server': server, 'certificate-authority-data': encode(authority_pem)}}
            for name, server in zip(names, servers, strict=True)
        ],
        'contexts': [{'name': name, 'context': {'cluster': name, 'user': user}} for name in names],
        'users': [
            {
                'name': user,
                'user': {
                    'client-certificate-data': encode(certificate_pem),
                    'client-key-data': encode(key_pem),
                },
            }
        ],
    }
    return yaml.safe_dump(document, sort_keys=False).encode()
