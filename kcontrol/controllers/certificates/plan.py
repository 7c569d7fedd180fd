"""Which requests a signer may sign, which are approved without a person, and which are too old. Pure.

Source: pkg/controller/certificates (approver/sarapprove.go, signer/signer.go, cleaner/cleaner.go).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from kclient.model import Obj
from kcore.meta.times import parse_time

CLIENT = 'kubernetes.io/kube-apiserver-client'
KUBELET_CLIENT = 'kubernetes.io/kube-apiserver-client-kubelet'
KUBELET_SERVING = 'kubernetes.io/kubelet-serving'
LEGACY = 'kubernetes.io/legacy-unknown'
SIGNERS = frozenset({CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY})
APPROVED_S, DENIED_S, PENDING_S = 3600.0, 3600.0, 86400.0
"""Ages after which a request is cleared away."""
_CLIENT_USAGES = (
    frozenset({'key encipherment', 'digital signature', 'client auth'}),
    frozenset({'digital signature', 'client auth'}),
)
_SERVING_USAGES = (
    frozenset({'key encipherment', 'digital signature', 'server auth'}),
    frozenset({'digital signature', 'server auth'}),
)
_ALTERNATIVES: dict[type[x509.GeneralName], str] = {
    x509.DNSName: 'DNS', x509.RFC822Name: 'email', x509.IPAddress: 'IP', x509.UniformResourceIdentifier: 'URI',
}  # fmt: skip
NODE_PREFIX, NODE_GROUP = 'system:node:', 'system:nodes'


class NotSignable(ValueError):
    """The request breaks a rule of its signer; the text says which."""


def has_condition(csr: Obj, kind: str) -> bool:
    held = (csr.get('status') or {}).get('conditions') or ()
    return any(c.get('type') == kind and c.get('status', 'True') == 'True' for c in held)


def decided(csr: Obj) -> bool:
    return has_condition(csr, 'Approved') or has_condition(csr, 'Denied')


def names(request: x509.CertificateSigningRequest) -> tuple[str, list[str]]:
    """(common name, organizations)."""
    common = [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return (common[0] if common else ''), groups


def alternatives(request: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    try:
        return request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def check(csr: Obj, request: x509.CertificateSigningRequest) -> None:
    """Raises NotSignable."""
    signer, usages = csr['spec']['signerName'], frozenset(csr['spec'].get('usages') or ())
    common, groups = names(request)
    if signer == CLIENT:
        if odd := sorted(usages - _CLIENT_USAGES[0]):
            raise NotSignable(f'invalid usage for client certificate: {odd[0]}')
        if 'client auth' not in usages:
            raise NotSignable('missing required usage for client certificate: client auth')
        if 'system:masters' in groups:
            raise NotSignable('subject organization system:masters is not allowed')
        return
    if signer in (KUBELET_CLIENT, KUBELET_SERVING):
        if groups != [NODE_GROUP]:
            raise NotSignable(f'subject organization is not {NODE_GROUP}')
        if not common.startswith(NODE_PREFIX):
            raise NotSignable(f'subject common name does not begin with {NODE_PREFIX}')
        _check_alternatives(signer, alternatives(request))
        allowed = _CLIENT_USAGES if signer == KUBELET_CLIENT else _SERVING_USAGES
        if usages not in allowed:
            raise NotSignable(f'usages did not match [{" ".join(sorted(allowed[0]))}]')


def _check_alternatives(signer: str, held: x509.SubjectAlternativeName | None) -> None:
    """A kubelet serves under names and addresses, and as a client has neither."""
    serves = signer == KUBELET_SERVING
    kinds = {type(name) for name in held} if held is not None else set()
    if serves and not kinds & {x509.DNSName, x509.IPAddress}:
        raise NotSignable('DNS or IP subjectAltName is required')
    for kind, word in _ALTERNATIVES.items():
        if kind in kinds and not (serves and kind in (x509.DNSName, x509.IPAddress)):
            raise NotSignable(f'{word} subjectAltNames are not allowed')


def asked_permission(csr: Obj, request: x509.CertificateSigningRequest) -> Obj | None:
    """Resource attributes that the requestor must hold to be approved without a person; None: a person decides."""
    signer = csr['spec']['signerName']
    if signer not in (KUBELET_CLIENT, KUBELET_SERVING):
        return None
    try:
        check(csr, request)
    except NotSignable:
        return None
    common, _ = names(request)
    own = csr['spec'].get('username') == common
    if signer == KUBELET_SERVING and not own:
        return None
    kind = 'selfnodeserver' if signer == KUBELET_SERVING else 'selfnodeclient' if own else 'nodeclient'
    return {
        'group': 'certificates.k8s.io', 'resource': 'certificatesigningrequests', 'verb': 'create', 'version': '*',
        'subresource': kind,
    }  # fmt: skip


def serves_only(request: x509.CertificateSigningRequest, taken: Collection[str]) -> bool:
    """Whether a node asks to serve under its own name, and at addresses where nobody else (`taken`) is reached."""
    held = alternatives(request)
    if held is None:
        return False
    own = names(request)[0].removeprefix(NODE_PREFIX)
    addresses = {str(a) for a in held.get_values_for_type(x509.IPAddress)}
    named = set(held.get_values_for_type(x509.DNSName))
    return len(held) == len(addresses) + len(named) and named <= {own} and not addresses & set(taken)


def expired_in_s(csr: Obj, certificate: x509.Certificate | None, now: datetime) -> float | None:
    """Seconds until the request is cleared away, 0 or less for now; None for an approved one that waits for its signer.

    certificate: what was issued.
    """
    conditions = (csr.get('status') or {}).get('conditions') or ()
    created = parse_time(csr['metadata']['creationTimestamp'])
    if not conditions:
        return _left(created, PENDING_S, now)
    issued = bool((csr.get('status') or {}).get('certificate'))
    waits: list[float] = []
    for condition in conditions:
        at = condition.get('lastUpdateTime') or condition.get('lastTransitionTime')
        kind, moment = condition.get('type'), parse_time(at) if at else created
        if kind in ('Denied', 'Failed') or (kind == 'Approved' and issued):
            waits.append(_left(moment, APPROVED_S if kind == 'Approved' else DENIED_S, now))
    if waits and certificate is not None:
        waits.append(_left(certificate.not_valid_after_utc, 0.0, now))
    return min(waits, default=None)


def _left(since: datetime, seconds: float, now: datetime) -> float:
    return (since + timedelta(seconds=seconds) - now).total_seconds()


def lifetime_s(csr: Obj, most_s: float) -> float:
    """How long the certificate is to be valid."""
    wanted = csr['spec'].get('expirationSeconds')
    return min(most_s, max(600.0, float(wanted))) if wanted is not None else most_s
