"""Certificates by request: make a key and a CertificateSigningRequest, and read what became of it. Pure.

Source: certificates.k8s.io/v1, client-go util/certificate/csr.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kcore.meta.gvk import Resource

Obj = dict[str, Any]
REQUESTS = Resource(
    'certificates.k8s.io', 'v1', 'certificatesigningrequests', 'CertificateSigningRequest', namespaced=False
)
CLIENT_SIGNER = 'kubernetes.io/kube-apiserver-client'
NODE_CLIENT_SIGNER = 'kubernetes.io/kube-apiserver-client-kubelet'
NODE_SERVING_SIGNER = 'kubernetes.io/kubelet-serving'


class NotIssued(Exception):
    """The request was denied or failed; the text says why."""


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def subject(user: str, groups: Sequence[str]) -> x509.Name:
    """The common name is the user, each organization a group."""
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, g) for g in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def alternative_names(names: Sequence[str]) -> x509.SubjectAlternativeName:
    """Addresses as addresses, everything else as DNS names."""

    def general(name: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            return x509.DNSName(name)

    return x509.SubjectAlternativeName([general(n) for n in names])


def request(
    key: ec.EllipticCurvePrivateKey,
    user: str,
    groups: Sequence[str],
    *,
    signer: str,
    serves: Sequence[str] = (),
    lasts_s: int | None = None,
) -> Obj:
    """The object to create; its name is the server's to choose. `serves`: names and addresses of a serving one."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject(user, groups))
    if serves:
        builder = builder.add_extension(alternative_names(serves), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    usage = 'server auth' if signer == NODE_SERVING_SIGNER else 'client auth'
    spec: Obj = {
        'request': base64.b64encode(pem).decode(), 'signerName': signer, 'usages': ['digital signature', usage],
    }  # fmt: skip
    if lasts_s is not None:
        spec['expirationSeconds'] = lasts_s
    return {
        'apiVersion': REQUESTS.api_version, 'kind': REQUESTS.kind, 'metadata': {'generateName': 'csr-'}, 'spec': spec,
    }  # fmt: skip


def issued(csr: Obj) -> bytes | None:
    """The certificate (PEM); None while it is under way. Raises NotIssued."""
    status = csr.get('status') or {}
    if status.get('certificate'):
        return base64.b64decode(status['certificate'])
    for condition in status.get('conditions') or ():
        if condition.get('type') in {'Denied', 'Failed'}:
            raise NotIssued(f'{condition["type"]}: {condition.get("message") or condition.get("reason") or ""}')
    return None
