"""Client certificates: the common name is the user, the organisations are the groups; and the front proxy's headers.

TLS has verified the chain against both authorities at once, so each certificate is asked once which of the two signed
it: one of the client CA speaks for itself, one of the front-proxy CA speaks for whom its headers name. A connection
outlives its certificate, so the end is compared at every request.
Source: apiserver pkg/authentication/request/{x509,headerrequest}.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from kapi.authn.user import AUTHENTICATED, User
from kapi.errors import Unauthorized
from kcore.env import Env

PEERS_MAX = 1_024
"""Certificates remembered, so that each is read once; the oldest is forgotten first."""
EXTRA_PREFIX = 'x-remote-extra-'


@dataclass(frozen=True, slots=True)
class Peer:
    """The far side of a TLS connection."""

    user: User | None
    name: str
    expires: datetime
    speaks: Literal['for itself', 'for others']


class Peers:
    """Reads client certificates, once each."""

    def __init__(self, env: Env, proxy_ca: Path | None = None) -> None:
        self._env = env
        self._proxy_ca = proxy_ca
        self._proxy_authorities()
        self._known: dict[bytes, Peer] = {}

    def of(self, request: web.BaseRequest) -> Peer | None:
        """None without a certificate. Raises Unauthorized when it has ended since the connection was made."""
        transport = request.transport
        tls = transport.get_extra_info('ssl_object') if transport is not None else None
        der = tls.getpeercert(True) if tls is not None else None
        if not der:
            return None
        peer = self._known.get(der)
        if peer is None:
            if len(self._known) >= PEERS_MAX:
                self._known.pop(next(iter(self._known)))
            peer = self._known[der] = self._read(x509.load_der_x509_certificate(der))
        if peer.expires <= self._env.clock.wall():
            raise Unauthorized
        return peer

    def _proxy_authorities(self) -> list[x509.Certificate]:
        """As the file is now: authorities rotate."""
        return x509.load_pem_x509_certificates(self._env.disk.read(self._proxy_ca)) if self._proxy_ca else []

    def _read(self, cert: x509.Certificate) -> Peer:
        names = [str(a.value) for a in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        groups = [str(a.value) for a in cert.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        name = names[-1] if names else ''
        user = User(name, (*groups, AUTHENTICATED)) if name else None
        proxy = any(_signed(cert, authority) for authority in self._proxy_authorities())
        return Peer(user, name, cert.not_valid_after_utc, 'for others' if proxy else 'for itself')


def _signed(cert: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


class ClientCertificate:
    """Authenticates connections that showed a certificate of the client CA."""

    name = 'x509'

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def authenticate(self, request: web.BaseRequest) -> User | None:
        peer = self._peers.of(request)
        return peer.user if peer is not None and peer.speaks == 'for itself' else None


class FrontProxy:
    """Authenticates by `X-Remote-*` headers from a proxy whose certificate the front-proxy CA signed."""

    name = 'front proxy'

    def __init__(self, peers: Peers, allowed_names: tuple[str, ...] = ()) -> None:
        self._peers = peers
        self._allowed = frozenset(allowed_names)

    async def authenticate(self, request: web.BaseRequest) -> User | None:
        name = request.headers.get('X-Remote-User', '')
        if not name:
            return None
        peer = self._peers.of(request)
        # Headers from anybody else are just headers: they are not believed, and no reason to refuse.
        if peer is None or peer.speaks != 'for others' or (self._allowed and peer.name not in self._allowed):
            return None
        groups = tuple(request.headers.getall('X-Remote-Group', []))
        extra = {
            unquote(h[len(EXTRA_PREFIX) :]).lower(): tuple(request.headers.getall(h))
            for h in request.headers
            if h.lower().startswith(EXTRA_PREFIX)
        }
        return User(name, (*groups, AUTHENTICATED), request.headers.get('X-Remote-Uid', ''), extra)
