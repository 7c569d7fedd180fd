"""Keys that sign service account tokens: one private key signs, several public keys may be believed (rotation).

A key's id is the hash of its public half, so that every API server names the same key the same way and a verifier
finds it in the published set. Source: pkg/serviceaccount/{jwt,openidmetadata}.go.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt.algorithms
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kcore.env import Env

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_CURVES = {'secp256r1': 'ES256', 'secp384r1': 'ES384', 'secp521r1': 'ES512'}


class BadKey(Exception):
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


def load_private(path: Path, env: Env) -> PrivateKey:
    """Raises BadKey naming the file."""
    try:
        key = serialization.load_pem_private_key(env.disk.read(path), None)
    except (OSError, ValueError, TypeError) as e:
        raise BadKey(f'{path}: no private key in PEM form ({e})') from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise BadKey(f'{path}: neither an EC nor an RSA key')
    return key


def load_public(path: Path, env: Env) -> PublicKey:
    """A public key, or the public half of a private one. Raises BadKey."""
    data = env.disk.read(path)
    if b'PRIVATE KEY' in data:
        return load_private(path, env).public_key()
    try:
        key = serialization.load_pem_public_key(data)
    except ValueError as e:
        raise BadKey(f'{path}: no public key in PEM form ({e})') from None
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise BadKey(f'{path}: neither an EC nor an RSA key')
    return key
