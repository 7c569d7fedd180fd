"""Authenticators asked in order: the first that knows the caller wins; bad credentials are an error at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from kapi.authn.user import ANONYMOUS, User
from kapi.errors import Unauthorized


class Authenticator(Protocol):
    name: str

    async def authenticate(self, request: web.BaseRequest) -> User | None:
        """None: these credentials are none of mine. Raises Unauthorized: they are, and they are no good."""


class Union:
    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        self.authenticators = tuple(authenticators)

    async def authenticate(self, request: web.BaseRequest) -> User:
        for authenticator in self.authenticators:
            user = await authenticator.authenticate(request)
            if user is not None:
                return user
        if 'Authorization' in request.headers:
            raise Unauthorized
        return ANONYMOUS
