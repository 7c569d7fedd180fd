"""Client certificates: the common name is the user, the organisations are the groups. TLS has verified the chain."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from kapi.authn.user import AUTHENTICATED, User


class ClientCertificate:
    """Authenticates connections that showed a certificate of the client CA."""

    name = 'x509'

    async def authenticate(self, request: web.BaseRequest) -> User | None:
        transport = request.transport
        cert = transport.get_extra_info('peercert') if transport is not None else None
        return user_of(cert) if cert else None


def user_of(cert: dict[str, Any]) -> User | None:
    name, groups = '', []
    for rdn in cert.get('subject', ()):
        for key, value in rdn:
            if key == 'commonName':
                name = value
            elif key == 'organizationName':
                groups.append(value)
    return User(name, (*groups, AUTHENTICATED)) if name else None
