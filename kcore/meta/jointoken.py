"""Join tokens (`abcdef.0123456789abcdef`) and what they sign: the cluster's description in kube-public/cluster-info.

Source: cluster-bootstrap/token/{api,jws}.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

TOKEN = re.compile(r'([a-z0-9]{6})\.([a-z0-9]{16})')
SIGNATURE = 'jws-kubeconfig-'
"""Prefix of the ConfigMap's entries; the token's first half follows."""


def detached_signature(content: str, token_id: str, secret: str) -> str:
    """A JWS (HS256) without its payload: `header..signature`."""
    header = _url(f'{{"alg":"HS256","kid":"{token_id}"}}'.encode())
    signed = hmac.new(secret.encode(), f'{header}.{_url(content.encode())}'.encode(), hashlib.sha256).digest()
    return f'{header}..{_url(signed)}'


def vouched(content: str, signature: str, token: str) -> bool:
    """Whether the holder of `token` has signed `content`."""
    match = TOKEN.fullmatch(token)
    return match is not None and hmac.compare_digest(detached_signature(content, *match.groups()), signature)


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode('ascii')
