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
from kcore.meta.gvk import Resource
from kcore.meta.times import format_time

REVIEWS = Resource('authorization.k8s.io', 'v1', 'subjectaccessreviews', 'SubjectAccessReview', namespaced=False)
APPROVAL = 'Auto approving kubelet client certificate after SubjectAccessReview.'


def parse(csr: Obj) -> x509.CertificateSigningRequest | None:
    """None when the request is no PEM request, or its signature is not that of its key."""
    try:
        request = x509.load_pem_x509_csr(base64.b64decode(csr['spec']['request'], validate=True))
    except ValueError:
        return None
    return request if request.is_signature_valid else None


@controller('csrapproving', primary=CERTIFICATESIGNINGREQUESTS)
async def approve(c: Ctx, key: str) -> Result | None:
    csr = c.get(CERTIFICATESIGNINGREQUESTS, key)
    if csr is None or p.decided(csr) or (csr.get('status') or {}).get('certificate'):
        return None
    request = parse(csr)
    wanted = p.asked_permission(csr, request) if request is not None else None
    if wanted is None or not await _allowed(c, csr, wanted):
        return None
    stamp = format_time(c.now())
    approved = {
        'type': 'Approved', 'status': 'True', 'reason': 'AutoApproved', 'message': APPROVAL,
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


@controller('csrsigning', primary=CERTIFICATESIGNINGREQUESTS)
async def sign(c: Ctx, key: str) -> Result | None:
    csr = c.get(CERTIFICATESIGNINGREQUESTS, key)
    signer = _signer(c)
    if csr is None or signer is None or csr['spec'].get('signerName') not in p.SIGNERS:
        return None
    if not p.has_condition(csr, 'Approved') or p.has_condition(csr, 'Denied') or p.has_condition(csr, 'Failed'):
        return None
    status = csr.get('status') or {}
    if status.get('certificate'):
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
    """Read once a term. Raises BadAuthority, OSError."""
    cert, key = c.config.cluster_signing_cert_file, c.config.cluster_signing_key_file
    if cert is None or key is None:
        return None
    if 'signer' not in c.state:
        c.state['signer'] = authority(c.env.disk.read(cert), c.env.disk.read(key))
    found: Authority = c.state['signer']
    return found


@controller('csrcleaner', primary=CERTIFICATESIGNINGREQUESTS)
async def clean(c: Ctx, key: str) -> Result | None:
    csr = c.get(CERTIFICATESIGNINGREQUESTS, key)
    if csr is None:
        return None
    left = p.expired_in_s(csr, c.now())
    if left > 0:
        return Result(left)
    try:
        await c.delete(CERTIFICATESIGNINGREQUESTS, csr)
    except NotFound:
        return None
    return None
