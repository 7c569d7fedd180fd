"""Keys that sign service account tokens: one private key signs, several public keys may be believed (rotation).

A key's id is the hash of its public half, so that every API server names the same key the same way and a verifier
finds it in the published set. Source: pkg/serviceaccount/{jwt,openidmetadata}.go.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jwt.algorithms
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kcore.env import Env
from kcore.tasks import BadSetting

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
log = structlog.get_logger('kapi.authn.keys')
RELOAD_S = 1.0
"""How often, at most, the files are looked at."""
_CURVES = {'secp256r1': 'ES256', 'secp384r1': 'ES384', 'secp521r1': 'ES512'}


class BadKey(BadSetting):
    """A key file that cannot be used; the text names it."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """One public key, with the only algorithm that it is good for."""

    id: str
    key: PublicKey
    algorithm: str

    def jwk(self) -> dict[str, Any]:
        """The key as the JSON Web Key that `/openid/v1/jwks` lists."""
        if isinstance(self.key, rsa.RSAPublicKey):
            found = jwt.algorithms.RSAAlgorithm.to_jwk(self.key, as_dict=True)
        else:
            found = jwt.algorithms.ECAlgorithm.to_jwk(self.key, as_dict=True)
        kept = {k: v for k, v in found.items() if k != 'key_ops'}
        return {'use': 'sig', 'alg': self.algorithm, 'kid': self.id, **kept}


def verifier(key: PublicKey) -> Verifier:
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    name = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b'=').decode()
    if isinstance(key, rsa.RSAPublicKey):
        return Verifier(name, key, 'RS256')
    if key.curve.name not in _CURVES:
        raise BadKey(f'curve {key.curve.name} cannot sign tokens; use P-256, P-384, P-521 or RSA')
    return Verifier(name, key, _CURVES[key.curve.name])


@dataclass(frozen=True, slots=True)
class KeySet:
    """The signing key and everything that may have signed."""

    signing: PrivateKey
    signer: Verifier
    verifiers: Mapping[str, Verifier]


def key_set(signing: PrivateKey, others: Iterable[PublicKey] = ()) -> KeySet:
    signer = verifier(signing.public_key())
    return KeySet(signing, signer, {v.id: v for v in (signer, *map(verifier, others))})


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


class KeySource(Protocol):
    def current(self, *, now: bool = False) -> KeySet:
        """The keys; the same object as long as they are the same. `now`: look, though we looked a moment ago."""


@dataclass(frozen=True, slots=True)
class FixedKeys:
    """Keys that live as long as the process."""

    keys: KeySet

    def current(self, *, now: bool = False) -> KeySet:
        return self.keys


class KeyFiles:
    """Keys in files, read again when they change: a new key begins to sign without a restart.

    The first private key of `signing` signs; all other keys of all files are believed.
    """

    def __init__(self, signing: Path, others: Sequence[Path], env: Env) -> None:
        """Raises BadKey, OSError."""
        self._files = (signing, *others)
        self._env = env
        self._contents = self._read()
        self._keys = self._parsed(self._contents)
        self._looked = env.clock.monotonic()

    def current(self, *, now: bool = False) -> KeySet:
        moment = self._env.clock.monotonic()
        if now or moment - self._looked >= RELOAD_S:
            self._looked = moment
            try:
                contents = self._read()
                if contents != self._contents:
                    self._keys, self._contents = self._parsed(contents), contents
                    log.info('keys of service account tokens were read anew', signer=self._keys.signer.id)
            except (BadKey, OSError) as e:
                log.warning('keys of service account tokens were not read anew', err=str(e))
        return self._keys

    def _read(self) -> list[bytes]:
        return [self._env.disk.read(path) for path in self._files]

    def _parsed(self, contents: Sequence[bytes]) -> KeySet:
        signing, *others = _blocks(contents[0])
        private = load_private(self._files[0], signing)
        rest = [load_public(self._files[0], block) for block in others]
        for path, data in zip(self._files[1:], contents[1:], strict=True):
            rest += [load_public(path, block) for block in _blocks(data)]
        return key_set(private, rest)


def _blocks(data: bytes) -> list[bytes]:
    """The PEM blocks of a file; one of nothing when there is none."""
    return re.findall(rb'-----BEGIN .*?-----END [^-]+-----', data, re.DOTALL) or [data]


def load_private(path: Path, data: bytes) -> PrivateKey:
    """Raises BadKey naming the file."""
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as e:
        raise BadKey(f'{path}: no private key in PEM form ({e})') from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise BadKey(f'{path}: neither an EC nor an RSA key')
    return key


def load_public(path: Path, data: bytes) -> PublicKey:
    """A public key, or the public half of a private one. Raises BadKey."""
    if b'PRIVATE KEY' in data:
        return load_private(path, data).public_key()
    try:
        key = serialization.load_pem_public_key(data)
    except ValueError as e:
        raise BadKey(f'{path}: no public key in PEM form ({e})') from None
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise BadKey(f'{path}: neither an EC nor an RSA key')
    return key
