"""Make a certificate from a request. The certificate's times are within those of the authority."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from kcontrol.controllers.certificates.plan import alternatives

BACKDATE = timedelta(minutes=5)
"""Clocks of other machines may be behind."""
_EXTENDED = {
    'client auth': ExtendedKeyUsageOID.CLIENT_AUTH, 'server auth': ExtendedKeyUsageOID.SERVER_AUTH,
    'code signing': ExtendedKeyUsageOID.CODE_SIGNING, 'email protection': ExtendedKeyUsageOID.EMAIL_PROTECTION,
    'timestamping': ExtendedKeyUsageOID.TIME_STAMPING, 'ocsp signing': ExtendedKeyUsageOID.OCSP_SIGNING,
    'any': ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}  # fmt: skip
_KEY_FIELDS = {
    'digital_signature': ('digital signature', 'signing'), 'content_commitment': ('content commitment',),
    'key_encipherment': ('key encipherment',), 'data_encipherment': ('data encipherment',),
    'key_agreement': ('key agreement',), 'key_cert_sign': ('cert sign',), 'crl_sign': ('crl sign',),
}  # fmt: skip


class BadAuthority(ValueError):
    """The signing certificate or key cannot be used; the text names the flag."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

    def sign(self, request: x509.CertificateSigningRequest, usages: set[str], now: datetime, lasts_s: float) -> bytes:
        """The PEM certificate."""
        end = min(now + timedelta(seconds=lasts_s), self.certificate.not_valid_after_utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(self.certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - BACKDATE, self.certificate.not_valid_before_utc))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(usages), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )  # fmt: skip
        extended = [_EXTENDED[u] for u in sorted(usages) if u in _EXTENDED]
        if extended:
            builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        held = alternatives(request)
        if held is not None:
            builder = builder.add_extension(held, critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _key_usage(usages: set[str]) -> x509.KeyUsage:
    flags = {field: any(w in usages for w in words) for field, words in _KEY_FIELDS.items()}
    agreed = flags['key_agreement']
    encipher = agreed and 'encipher only' in usages
    return x509.KeyUsage(**flags, encipher_only=encipher, decipher_only=agreed and 'decipher only' in usages)


def authority(certificate: bytes, key: bytes) -> Authority:
    """Raises BadAuthority."""
    try:
        listed = x509.load_pem_x509_certificates(certificate)
    except ValueError as e:
        raise BadAuthority(f'--cluster-signing-cert-file: {e}') from None
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as e:
        raise BadAuthority(f'--cluster-signing-key-file: {e}') from None
    if not isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise BadAuthority('--cluster-signing-key-file: must be an RSA or an elliptic curve key')
    for found in listed:  # after a rotation the file also lists those before
        if private.public_key() == found.public_key():
            return Authority(found, private)
    raise BadAuthority('--cluster-signing-key-file: does not belong to --cluster-signing-cert-file')
