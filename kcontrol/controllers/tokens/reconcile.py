"""The token controller. Source: pkg/controller/serviceaccount/tokens_controller.go.

Differs: the API server puts the token in when the Secret is written (`kapi/admission/plugins/token_secret.py`), since
only it holds the signing key. A Secret that was written before its account gets one from the TokenRequest API, bound to
the Secret, that lasts ten years instead of for ever.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from kclient.errors import NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcore.meta.gvk import SECRETS, SERVICEACCOUNTS
from kcore.meta.objects import annotations_of, deleting, key_of, name_of, namespace_of, uid_of
from kcore.meta.tokensecrets import ACCOUNT, ACCOUNT_UID, TYPE

LASTS_S = 10 * 365 * 86400
WAIT_S = 10.0
"""A Secret whose account does not exist may have come before it; after this it is removed."""


def secrets_of(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """Token Secrets of an account that came or went."""
    account = new if new is not None else old
    if account is None or (old is not None and new is not None):
        return ()
    return (
        key_of(s)
        for s in c.in_namespace(SECRETS, namespace_of(account))
        if s.get('type') == TYPE and annotations_of(s).get(ACCOUNT) == name_of(account)
    )


@controller('serviceaccount-token', primary=SECRETS, watches=[Watching(SERVICEACCOUNTS, secrets_of)])
async def reconcile(c: Ctx, key: str) -> Result | None:
    secret = c.get(SECRETS, key)
    if secret is None or secret.get('type') != TYPE or deleting(secret):
        return None
    name, namespace = annotations_of(secret).get(ACCOUNT, ''), namespace_of(secret)
    try:
        account = await c.client.get(SERVICEACCOUNTS, name, namespace)
    except NotFound:
        return await _without_account(c, secret, key)
    c.state.pop(key, None)
    known = annotations_of(secret).get(ACCOUNT_UID)
    if known and known != uid_of(account):
        await c.delete(SECRETS, secret)  # its account was deleted; this is a namesake
        return None
    ca = c.client.config.ca_data or b''
    data = {'ca.crt': _encode(ca), 'namespace': _encode(namespace.encode())}
    held = secret.get('data') or {}
    if not held.get('token'):
        data['token'] = _encode((await _token(c, secret, account)).encode())
    if known != uid_of(account) or any(held.get(k) != v for k, v in data.items()):
        mark = {'metadata': {'annotations': {ACCOUNT_UID: uid_of(account)}}}
        await c.patch(SECRETS, secret, {'data': data, **mark})
    return None


async def _without_account(c: Ctx, secret: Obj, key: str) -> Result | None:
    since = c.state.setdefault(key, c.env.clock.monotonic())
    left = WAIT_S - (c.env.clock.monotonic() - since)
    if left > 0 and not annotations_of(secret).get(ACCOUNT_UID):
        return Result(left)
    c.state.pop(key, None)
    try:
        await c.delete(SECRETS, secret)
    except NotFound:
        return None
    return None


async def _token(c: Ctx, secret: Obj, account: Obj) -> str:
    bound = {'apiVersion': 'v1', 'kind': 'Secret', 'name': name_of(secret), 'uid': uid_of(secret)}
    body = {
        'apiVersion': 'authentication.k8s.io/v1', 'kind': 'TokenRequest',
        'metadata': {'namespace': namespace_of(account), 'name': name_of(account)},
        'spec': {'audiences': [], 'expirationSeconds': LASTS_S, 'boundObjectRef': bound},
    }  # fmt: skip
    answer = await c.client.create(SERVICEACCOUNTS, body, subresource='token', name=name_of(account))
    return str(answer['status']['token'])


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode('ascii')
