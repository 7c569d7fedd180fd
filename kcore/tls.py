"""TLS with certificates that are read again when their files change, so that they rotate without a restart.

OpenSSL cannot make a context in use forget an authority. So a change makes a new context: a listening socket gets it at
the next handshake, where the server-name callback may exchange contexts; a dialler asks for `client()` each time.
Session tickets are off: a resumed session would be one that nobody has verified since the change.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from kcore.env import Env
from kcore.tasks import BadSetting

ClientTls = Callable[[], ssl.SSLContext] | None
"""Asked at each connection; None for connections in clear text."""
log = structlog.get_logger('kcore.tls')


class BadCertificate(BadSetting):
    """Files that make no TLS identity; the text names them."""


class Identity:
    """A certificate with its key, and the authorities that sign the other side's."""

    def __init__(
        self,
        env: Env,
        pair: tuple[Path, Path] | None,
        authorities: Sequence[Path],
        *,
        client_certificates: ssl.VerifyMode = ssl.CERT_REQUIRED,
        protocols: Sequence[str] = (),
    ) -> None:
        """`pair`: certificate (or chain) and key; a pure client may have none. `client_certificates`: of a server.

        Raises BadCertificate.
        """
        self._env = env
        self._pair = pair
        self._authorities = tuple(authorities)
        self._verify = client_certificates
        self._protocols = list(protocols)
        self._sides: dict[Callable[[], ssl.SSLContext], tuple[list[bytes], ssl.SSLContext]] = {}

    def server(self) -> ssl.SSLContext:
        """For a listening socket; every handshake is done with the files as they are then."""
        context = self._made(self._serving)

        def renew(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self._current(self._serving)

        context.sni_callback = renew
        return context

    def client(self) -> ssl.SSLContext:
        """For the next connection; the same object as long as the files are the same. Raises BadCertificate."""
        return self._current(self._dialling)

    def _current(self, side: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        known = self._sides.get(side)
        if known is None:
            return self._made(side)
        try:
            if self._contents() == known[0]:
                return known[1]
            context = self._made(side)
        except BadCertificate as e:  # half of a pair has been replaced, perhaps: the other half will follow
            log.warning('certificates were not read anew', err=str(e))
            return known[1]
        log.info('certificates were read anew', file=str(self._pair[0] if self._pair else self._authorities[0]))
        return context

    def _made(self, side: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        contents = self._contents()
        context = side()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._sides[side] = contents, context
        return context

    def _contents(self) -> list[bytes]:
        try:
            return [self._env.disk.read(file) for file in (*(self._pair or ()), *self._authorities)]
        except OSError as e:
            raise BadCertificate(f'{e.filename}: {e.strerror}') from e

    def _serving(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = self._verify
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        if self._protocols:
            context.set_alpn_protocols(self._protocols)
        return self._filled(context)

    def _dialling(self) -> ssl.SSLContext:
        return self._filled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _filled(self, context: ssl.SSLContext) -> ssl.SSLContext:
        if self._pair is not None:
            cert, key = self._pair
            try:
                context.load_cert_chain(cert, key)
            except ssl.SSLError as e:
                alien = e.reason == 'KEY_VALUES_MISMATCH'
                what = 'do not belong together' if alien else f'are no certificate and key in PEM form ({e})'
                raise BadCertificate(f'{cert} and {key} {what}') from e
        for file in self._authorities:
            try:
                context.load_verify_locations(file)
            except ssl.SSLError as e:
                raise BadCertificate(f'{file}: no authority in PEM form ({e})') from e
        return context


class Unbelieved(ConnectionError):
    """The other side left without a word right after the handshake."""


def lost(transport: asyncio.BaseTransport | None, e: Exception | None) -> Exception | None:
    """Why a connection ended before the first word: asyncio's servers send no alert when they refuse a certificate."""
    encrypted = transport is not None and transport.get_extra_info('ssl_object') is not None
    return Unbelieved() if encrypted and not isinstance(e, ssl.SSLError) else e


def trouble(e: BaseException | None) -> str:
    """What is wrong with whose certificate, for people, when a connection to somebody failed for that; else empty."""
    if isinstance(e, BadCertificate):
        return str(e)
    if isinstance(e, Unbelieved):
        return 'it closed the connection after the handshake, as when it does not believe our certificate'
    if isinstance(e, ssl.SSLCertVerificationError):
        return f'its certificate is not believed: {e.verify_message}'
    if isinstance(e, ssl.SSLError):
        reason = (e.reason or str(e)).lower().replace('_', ' ')
        return f'it does not believe our certificate: {reason}' if 'alert' in reason else f'no TLS with it: {reason}'
    return ''
