"""CertificateSigningRequest: a key asks for a certificate; a person or a controller decides."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import PlainStrategy
from kapi.kinds.printing import AGE, NONE, text
from kapi.kinds.rules import immutable, invalid, not_supported, required
from kapi.registry.kind import READ_WRITE, Col, Connect, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path
from kcore.meta.times import human_duration

MIN_EXPIRATION_S = 600
USAGES = frozenset(
    (
        'signing', 'digital signature', 'content commitment', 'key encipherment', 'key agreement', 'data encipherment',
        'cert sign', 'crl sign', 'encipher only', 'decipher only', 'any', 'server auth', 'client auth', 'code signing',
        'email protection', 's/mime', 'ipsec end system', 'ipsec tunnel', 'ipsec user', 'timestamping', 'ocsp signing',
        'microsoft sgc', 'netscape sgc',
    )
)  # fmt: skip


class CertificateSigningRequestStrategy(PlainStrategy):
    """Who asks is written by the server, and nothing of the request changes afterwards."""

    def prepare(self, new: Obj, old: Obj | None) -> None:
        if old is not None:
            new['spec'] = old.get('spec') or {}

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        if not spec.get('request'):
            yield required('spec.request')
        signer = spec.get('signerName') or ''
        if not signer:
            yield required('spec.signerName')
        elif '/' not in signer:
            yield invalid(
                'spec.signerName',
                signer,
                'must be a fully qualified domain and path of the form "example.com/signer-name"',
            )
        if not spec.get('usages'):
            yield required('spec.usages', 'usages must contain at least one value')
        for i, usage in enumerate(spec.get('usages') or ()):
            if usage not in USAGES:
                yield not_supported(f'spec.usages[{i}]', usage, USAGES)
        seconds = spec.get('expirationSeconds')
        if seconds is not None and seconds < MIN_EXPIRATION_S:
            yield invalid(
                'spec.expirationSeconds',
                seconds,
                f'may not specify a duration less than {MIN_EXPIRATION_S} seconds (10 minutes)',
            )

    def validate_status(self, new: Obj, old: Obj) -> Iterator[Invalid]:
        before = get_path(old, 'status.certificate')
        if before:
            yield from immutable('status.certificate', get_path(new, 'status.certificate'), before)


def _condition(obj: Obj, _now: datetime) -> str:
    kinds = [c.get('type') for c in get_path(obj, 'status.conditions') or ()]
    found = [next((word for word in ('Denied', 'Approved') if word in kinds), 'Pending')]
    if 'Failed' in kinds:
        found.append('Failed')
    if get_path(obj, 'status.certificate'):
        found.append('Issued')
    return ','.join(found)


def _duration(obj: Obj, _now: datetime) -> str:
    seconds = get_path(obj, 'spec.expirationSeconds')
    return NONE if seconds is None else human_duration(seconds)


KIND = Kind(
    resource=Resource('certificates.k8s.io', 'v1', 'certificatesigningrequests', 'CertificateSigningRequest', False),
    strategy=CertificateSigningRequestStrategy(),
    short=('csr',),
    subresources=(Connect('approval', 'CertificateSigningRequest', READ_WRITE), Status()),
    columns=(
        AGE,
        Col('SignerName', text('spec.signerName', NONE), description='Who is to sign.'),
        Col('Requestor', text('spec.username'), description='Who asked.'),
        Col('RequestedDuration', _duration, description='How long it should be valid.'),
        Col('Condition', _condition, description='Pending, Approved, Denied, Issued.'),
    ),
    selectable={'spec.signerName': 'spec.signerName'},
)
