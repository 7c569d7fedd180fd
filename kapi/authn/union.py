"""Authenticators asked in order: the first that knows the caller wins; bad credentials are an error at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from kapi.authn.user import ANONYMOUS, User
from kapi.errors import Unauthorized

ANONYMOUS_PATHS = ('/healthz', '/livez', '/readyz', '/version')
"""Open without credentials even when anonymous requests are refused: probes have none."""


class Authenticator(Protocol):
    name: str

    async def authenticate(self, request: web.BaseRequest) -> User | None:
        """None: these credentials are none of mine. Raises Unauthorized: they are, and they are no good."""


class Union:
    def __init__(self, authenticators: Sequence[Authenticator], *, anonymous: bool = True) -> None:
        self.authenticators = tuple(authenticators)
        self._anonymous = anonymous

    async def authenticate(self, request: web.BaseRequest) -> User:
        for authenticator in self.authenticators:
            user = await authenticator.authenticate(request)
            if user is not None:
                return user
        if 'Authorization' in request.headers:
            raise Unauthorized
        if not self._anonymous and not _open(request.path):
            raise Unauthorized
        return ANONYMOUS


def _open(path: str) -> bool:
    return any(path == root or path.startswith(f'{root}/') for root in ANONYMOUS_PATHS)
