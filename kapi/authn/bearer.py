"""`Authorization: Bearer …`: one token, several authenticators that may know it; the first that does wins.

A token that nobody knows is 401 and never anonymous: whoever shows credentials wants to be somebody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from aiohttp import web

from kapi.authn.tokens import BadToken
from kapi.authn.user import User
from kapi.errors import Unauthorized

log = structlog.get_logger('kapi.authn')
WEBSOCKET_PREFIX = 'base64url.bearer.authorization.k8s.io.'


@dataclass(frozen=True, slots=True)
class Identified:
    """Whose token it is, and for which of the asked audiences."""

    user: User
    audiences: tuple[str, ...] = ()


class TokenAuthenticator(Protocol):
    name: str

    async def identify(self, token: str, audiences: Sequence[str]) -> Identified | None:
        """None: not one of mine. Raises BadToken: mine, and no good."""


class Bearer:
    """Authenticates requests by their bearer token, and answers TokenReview."""

    name = 'bearer'

    def __init__(self, authenticators: Sequence[TokenAuthenticator], audiences: Sequence[str]) -> None:
        self.authenticators = tuple(authenticators)
        self.audiences = tuple(audiences)

    async def authenticate(self, request: web.BaseRequest) -> User | None:
        token = token_of(request)
        if not token:
            return None
        try:
            found = await self.identify(token, self.audiences)
        except BadToken as e:
            log.info('token was refused', why=str(e), path=request.path)
            raise Unauthorized from None
        if found is None:
            raise Unauthorized
        return found.user

    async def identify(self, token: str, audiences: Sequence[str]) -> Identified | None:
        """Raises BadToken when an authenticator knew the token as bad and no other knew it as good."""
        bad: BadToken | None = None
        for authenticator in self.authenticators:
            try:
                found = await authenticator.identify(token, audiences)
            except BadToken as e:
                bad = bad or e
                continue
            if found is not None:
                return found
        if bad is not None:
            raise bad
        return None


def token_of(request: web.BaseRequest) -> str:
    """From the Authorization header; browsers cannot set it on WebSockets and use a protocol name instead."""
    scheme, _, token = request.headers.get('Authorization', '').partition(' ')
    if scheme.lower() == 'bearer':
        return token.strip()
    for offered in request.headers.get('Sec-WebSocket-Protocol', '').split(','):
        if offered.strip().startswith(WEBSOCKET_PREFIX):
            return _decoded(offered.strip().removeprefix(WEBSOCKET_PREFIX))
    return ''


def _decoded(text: str) -> str:
    import base64  # noqa: PLC0415 — only WebSockets from browsers come here

    try:
        return base64.urlsafe_b64decode(text + '=' * (-len(text) % 4)).decode()
    except ValueError:
        raise Unauthorized from None
