"""CertificateSigningRequests: the server writes who asks; approving and signing need a permission on the signer.

Source: plugin/pkg/admission/certificates/{approval,signing,subjectrestriction}, pkg/registry/certificates.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.authn.user import MASTERS
from kapi.authz.union import Attributes as Question
from kapi.authz.union import Union
from kapi.errors import Forbidden, InvalidObject
from kapi.registry.strategy import Invalid
from kcore.env import Env
from kcore.meta.times import format_time

Obj = dict[str, Any]
GROUP, PLURAL = 'certificates.k8s.io', 'certificatesigningrequests'
DECISIONS = frozenset({'Approved', 'Denied', 'Failed'})
API_CLIENT_SIGNER = 'kubernetes.io/kube-apiserver-client'


class CertificateRequests(Plugin):
    name = 'CertificateRequests'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE'})
    about = frozenset({(GROUP, PLURAL)})

    def __init__(self, authz: Union, env: Env) -> None:
        self._authz = authz
        self._env = env

    async def mutate(self, a: Attributes) -> None:
        if a.operation == 'CREATE' and a.is_for(GROUP, PLURAL) and a.obj is not None:
            spec = a.obj.setdefault('spec', {})
            for field in ('username', 'uid', 'groups', 'extra'):
                spec.pop(field, None)
            spec |= a.user.info()
        if a.operation == 'UPDATE' and a.obj is not None and a.subresource in {'approval', 'status'}:
            r = a.kind.resource
            if (r.group, r.plural) == (GROUP, PLURAL):
                self._complete(a.obj, a.old or {}, approval=a.subresource == 'approval')

    def _complete(self, obj: Obj, old: Obj, *, approval: bool) -> None:
        """Times of new conditions. Who approves writes conditions only: a certificate takes somebody who may sign."""
        given = obj.get('status') or {}
        conditions = given.get('conditions') or []
        before = {c.get('type'): c for c in (old.get('status') or {}).get('conditions') or ()}
        now = format_time(self._env.clock.wall())
        for condition in conditions:
            same = before.get(condition.get('type'), {})
            unchanged = same.get('status') == condition.get('status')
            if not condition.get('lastUpdateTime'):
                condition['lastUpdateTime'] = now
            if not condition.get('lastTransitionTime'):
                condition['lastTransitionTime'] = (unchanged and same.get('lastTransitionTime')) or now
        if approval:
            status = {k: v for k, v in (old.get('status') or {}).items() if k != 'conditions'}
            obj['status'] = {**status, 'conditions': conditions} if conditions else status

    async def validate(self, a: Attributes) -> None:
        r = a.kind.resource
        if (r.group, r.plural) != (GROUP, PLURAL) or a.obj is None:
            return
        if a.operation == 'CREATE':
            _check_request(a.obj)
            return
        old, new = (a.old or {}).get('status') or {}, a.obj.get('status') or {}
        if a.subresource == 'approval':
            await self._need(a, 'approve')
        elif a.subresource == 'status' and any(old.get(k) != new.get(k) for k in ('certificate', 'conditions')):
            await self._need(a, 'sign')
        _keep_decisions(a, old, new)

    async def _need(self, a: Attributes, verb: str) -> None:
        """On `signers` with the signer's name, or `domain/*`."""
        assert a.obj is not None
        signer = str((a.obj.get('spec') or {}).get('signerName') or '')
        for name in (signer, f'{signer.partition("/")[0]}/*'):
            question = Question(a.user, verb, GROUP, '*', 'signers', '', '', name)
            if (await self._authz.decide(question)).verdict == 'allow':
                return
        why = f'user not permitted to {verb} requests with signerName "{signer}"'
        raise Forbidden.on(a.kind.resource, a.name, why)


def _check_request(obj: Obj) -> None:
    spec, name = obj.get('spec') or {}, obj['metadata'].get('name', '')
    request = _parsed(spec.get('request') or '')
    if request is None:
        why = 'Invalid value: "": PEM block type must be CERTIFICATE REQUEST, properly signed'
        raise InvalidObject('CertificateSigningRequest', GROUP, name, [Invalid('spec.request', why)])
    groups = [a.value for a in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if spec.get('signerName') == API_CLIENT_SIGNER and MASTERS in groups:
        why = f'use of {API_CLIENT_SIGNER} signer with {MASTERS} group is not allowed'
        raise Forbidden(f'{PLURAL}.{GROUP} "{name}" is forbidden: {why}')


def _parsed(text: str) -> x509.CertificateSigningRequest | None:
    try:
        request = x509.load_pem_x509_csr(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        return None
    return request if request.is_signature_valid else None


def _keep_decisions(a: Attributes, old: Obj, new: Obj) -> None:
    """Approved and Denied exclude each other and are never taken back."""
    kinds = {c.get('type') for c in new.get('conditions') or ()}
    before = {c.get('type') for c in old.get('conditions') or ()} & DECISIONS
    texts = [f'Forbidden: updates may not remove a condition of type "{k}"' for k in sorted(before - kinds)]
    if {'Approved', 'Denied'} <= kinds:
        texts.append('Invalid value: "Approved": Approved and Denied conditions are mutually exclusive')
    if a.subresource != 'approval' and (kinds & {'Approved', 'Denied'}) - before:
        texts.append('Forbidden: updates may not add a condition of type "Approved" or "Denied"')
    broken = [Invalid('status.conditions', text) for text in texts]
    for i, condition in enumerate(new.get('conditions') or ()):
        good = ('True',) if condition.get('type') in DECISIONS else ('True', 'False', 'Unknown')
        if condition.get('status') not in good:
            listed = ', '.join(f'"{g}"' for g in good)
            why = f'Unsupported value: "{condition.get("status", "")}": supported values: {listed}'
            broken.append(Invalid(f'status.conditions[{i}].status', why, 'FieldValueNotSupported'))
    if broken:
        raise InvalidObject('CertificateSigningRequest', GROUP, a.name, broken)
