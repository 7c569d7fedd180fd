"""The three controllers of CertificateSigningRequests."""

from __future__ import annotations

import base64

from cryptography import x509

from kclient.errors import NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, controller
from kcontrol.controllers.certificates import plan as p
from kcontrol.controllers.certificates.signing import Authority, authority
from kcontrol.kinds import CERTIFICATESIGNINGREQUESTS
from kcore.meta.gvk import ENDPOINTS, NODES, SERVICES, Resource
from kcore.meta.times import format_time

REVIEWS = Resource('authorization.k8s.io', 'v1', 'subjectaccessreviews', 'SubjectAccessReview', namespaced=False)
APPROVALS = {
    'nodeclient': 'Auto approving kubelet client certificate after SubjectAccessReview.',
    'selfnodeclient': 'Auto approving self kubelet client certificate after SubjectAccessReview.',
    'selfnodeserver': 'Auto approving kubelet serving certificate after SubjectAccessReview.',
}
"""By the permission that was asked for."""
ASK_AGAIN_S = 60.0
"""Somebody may be given the permission later."""


def parse(csr: Obj) -> x509.CertificateSigningRequest | None:
    """None when the request is no PEM request, or its signature is not that of its key."""
    try:
        request = x509.load_pem_x509_csr(base64.b64decode(csr['spec']['request'], validate=True))
    except ValueError:
        return None
    return request if request.is_signature_valid else None


def issued(csr: Obj) -> x509.Certificate | None:
    """The certificate of the status; None when there is none that can be read."""
    text = (csr.get('status') or {}).get('certificate') or ''
    try:
        return x509.load_pem_x509_certificates(base64.b64decode(text, validate=True))[0] if text else None
    except ValueError:
        return None


@controller('csrapproving', primary=CERTIFICATESIGNINGREQUESTS)
async def approve(c: Ctx, key: str) -> Result | None:
    csr = c.get(CERTIFICATESIGNINGREQUESTS, key)
    if csr is None or p.decided(csr) or (csr.get('status') or {}).get('certificate'):
        return None
    request = parse(csr)
    wanted = p.asked_permission(csr, request) if request is not None else None
    if request is None or wanted is None:
        return None
    if not await _allowed(c, csr, wanted):
        return Result(ASK_AGAIN_S)
    if csr['spec']['signerName'] == p.KUBELET_SERVING and not p.serves_only(request, await _of_others(c, request)):
        return None  # names that are not the node's own are for a person to judge
    stamp = format_time(c.now())
    approved = {
        'type': 'Approved', 'status': 'True', 'reason': 'AutoApproved', 'message': APPROVALS[wanted['subresource']],
        'lastUpdateTime': stamp, 'lastTransitionTime': stamp,
    }  # fmt: skip
    held = (csr.get('status') or {}).get('conditions') or []
    body = {**csr, 'status': {**(csr.get('status') or {}), 'conditions': [*held, approved]}}
    await c.client.update(CERTIFICATESIGNINGREQUESTS, body, subresource='approval')
    return None


async def _allowed(c: Ctx, csr: Obj, attributes: Obj) -> bool:
    spec = csr['spec']
    asked = {k: spec[k] for k in ('groups', 'extra', 'uid') if spec.get(k)}
    review = {'spec': {'user': spec.get('username') or '', **asked, 'resourceAttributes': attributes}}
    answer = await c.client.create(REVIEWS, review)
    return bool((answer.get('status') or {}).get('allowed'))


async def _of_others(c: Ctx, request: x509.CertificateSigningRequest) -> set[str]:
    """Addresses at which somebody else is reached: other nodes, the API servers, Services."""
    name = p.names(request)[0].removeprefix(p.NODE_PREFIX)
    nodes = [n for n in (await c.client.list(NODES)).items if n['metadata']['name'] != name]
    taken = {a['address'] for n in nodes for a in (n.get('status') or {}).get('addresses') or ()}
    api = await c.client.get(ENDPOINTS, 'kubernetes', 'default')
    taken |= {a['ip'] for s in api.get('subsets') or () for a in s.get('addresses') or ()}
    for service in (await c.client.list(SERVICES)).items:
        taken |= set(service['spec'].get('clusterIPs') or ()) | set(service['spec'].get('externalIPs') or ())
    return taken


@controller('csrsigning', primary=CERTIFICATESIGNINGREQUESTS)
async def sign(c: Ctx, key: str) -> Result | None:
    csr = c.get(CERTIFICATESIGNINGREQUESTS, key)
    if csr is None or csr['spec'].get('signerName') not in p.SIGNERS:
        return None
    if not p.has_condition(csr, 'Approved') or p.has_condition(csr, 'Denied') or p.has_condition(csr, 'Failed'):
        return None
    status = csr.get('status') or {}
    if status.get('certificate') or (signer := _signer(c)) is None:
        return None
    request = parse(csr)
    try:
        if request is None:
            raise p.NotSignable('unable to parse csr: not a PEM certificate request')
        p.check(csr, request)
    except p.NotSignable as e:
        stamp = format_time(c.now())
        failed = {
            'type': 'Failed', 'status': 'True', 'reason': 'SignerValidationFailure', 'message': str(e),
            'lastUpdateTime': stamp, 'lastTransitionTime': stamp,
        }  # fmt: skip
        status = {**status, 'conditions': [*(status.get('conditions') or ()), failed]}
        await c.patch_status(CERTIFICATESIGNINGREQUESTS, csr, status)
        return None
    lasts_s = p.lifetime_s(csr, c.config.cluster_signing_duration_s)
    pem = signer.sign(request, set(csr['spec'].get('usages') or ()), c.now(), lasts_s)
    status = {**status, 'certificate': base64.b64encode(pem).decode('ascii')}
    await c.patch_status(CERTIFICATESIGNINGREQUESTS, csr, status)
    return None


def _signer(c: Ctx) -> Authority | None:
    """As the files are now: authorities rotate. Raises BadAuthority, OSError."""
    cert, key = c.config.cluster_signing_cert_file, c.config.cluster_signing_key_file
    if cert is None or key is None:
        return None
    return authority(c.env.disk.read(cert), c.env.disk.read(key))


@controller('csrcleaner', primary=CERTIFICATESIGNINGREQUESTS)
async def clean(c: Ctx, key: str) -> Result | None:
    csr = c.get(CERTIFICATESIGNINGREQUESTS, key)
    if csr is None:
        return None
    left = p.expired_in_s(csr, issued(csr), c.now())
    if left is None or left > 0:
        return Result(left) if left is not None else None
    try:
        await c.delete(CERTIFICATESIGNINGREQUESTS, csr)
    except NotFound:
        return None
    return None
