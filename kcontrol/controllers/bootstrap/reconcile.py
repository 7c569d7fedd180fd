"""The bootstrap signer and the token cleaner. Source: pkg/controller/bootstrap, cluster-bootstrap/token/jws."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from datetime import datetime

from kclient.errors import NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcore.meta.gvk import CONFIGMAPS, SECRETS
from kcore.meta.jointoken import SIGNATURE, detached_signature
from kcore.meta.objects import deleting, name_of, namespace_of
from kcore.meta.times import parse_time

TYPE = 'bootstrap.kubernetes.io/token'
NAMESPACE, PUBLIC, CLUSTER_INFO = 'kube-system', 'kube-public', 'cluster-info'


def field(secret: Obj, name: str) -> str:
    """A data entry as text; '' when it is missing or no text."""
    try:
        return base64.b64decode(str((secret.get('data') or {}).get(name) or '')).decode('utf-8')
    except ValueError:
        return ''


def is_token(secret: Obj) -> bool:
    return secret.get('type') == TYPE and namespace_of(secret) == NAMESPACE


def expires_in_s(secret: Obj, now: datetime) -> float | None:
    """Seconds; None for a token that does not expire. An unreadable time counts as past, as upstream holds it."""
    text = field(secret, 'expiration')
    if not text:
        return None
    try:
        return (parse_time(text) - now).total_seconds()
    except ValueError:
        return 0.0


def signatures(content: str, secrets: Iterable[Obj], now: datetime) -> dict[str, str]:
    """Entries of cluster-info: one for each token that may sign and has not expired."""
    found: dict[str, str] = {}
    for secret in secrets:
        token_id, key = field(secret, 'token-id'), field(secret, 'token-secret')
        left = expires_in_s(secret, now)
        usable = re.fullmatch(r'[a-z0-9]{6}', token_id) and name_of(secret) == f'bootstrap-token-{token_id}'
        if usable and key and field(secret, 'usage-bootstrap-signing') == 'true' and (left is None or left > 0):
            found[f'{SIGNATURE}{token_id}'] = detached_signature(content, token_id, key)
    return found


def cluster_info(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    return (f'{PUBLIC}/{CLUSTER_INFO}',) if any(s is not None and is_token(s) for s in (old, new)) else ()


@controller('bootstrap-signer', primary=CONFIGMAPS, watches=[Watching(SECRETS, cluster_info)])
async def sign(c: Ctx, key: str) -> Result | None:
    if key != f'{PUBLIC}/{CLUSTER_INFO}':
        return None
    info = c.get(CONFIGMAPS, key)
    content = str((info.get('data') or {}).get('kubeconfig') or '') if info is not None else ''
    if info is None or not content:
        return None
    tokens = [s for s in c.in_namespace(SECRETS, NAMESPACE) if is_token(s)]
    wanted = signatures(content, tokens, c.now())
    held = {k: v for k, v in info['data'].items() if k.startswith(SIGNATURE)}
    if wanted != held:
        await c.patch(CONFIGMAPS, info, {'data': {**dict.fromkeys(held), **wanted}})
    return None


@controller('token-cleaner', primary=SECRETS)
async def clean(c: Ctx, key: str) -> Result | None:
    secret = c.get(SECRETS, key)
    if secret is None or not is_token(secret) or deleting(secret):
        return None
    left = expires_in_s(secret, c.now())
    if left is None or left > 0:
        return Result(left) if left is not None else None
    try:
        await c.delete(SECRETS, secret)
    except NotFound:
        return None
    return None
