"""Why another server was not reached, in the words of the network: what clients and conditions show of failed calls."""

from __future__ import annotations

import os

import aiohttp

from kcore.tls import trouble


def said(e: BaseException) -> str:
    """`dial tcp 10.0.0.1:443: connect: connection refused`; a certificate's fault in its own words."""
    if isinstance(e, aiohttp.ClientConnectorCertificateError):
        return f'tls: failed to verify certificate: {trouble(e.certificate_error) or e.certificate_error}'
    if not isinstance(e, aiohttp.ClientConnectorError):
        return str(e) or type(e).__name__
    cause = e.os_error
    why = trouble(cause) or (os.strerror(cause.errno).lower() if cause.errno else str(cause))
    return f'dial tcp {e.host}:{e.port}: connect: {why}'
