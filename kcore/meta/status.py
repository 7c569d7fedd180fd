"""Reasons and codes of the Kubernetes `Status` object, as data. Source: apimachinery/pkg/apis/meta/v1/types.go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

BAD_REQUEST: Final = 'BadRequest'
UNAUTHORIZED: Final = 'Unauthorized'
FORBIDDEN: Final = 'Forbidden'
NOT_FOUND: Final = 'NotFound'
METHOD_NOT_ALLOWED: Final = 'MethodNotAllowed'
NOT_ACCEPTABLE: Final = 'NotAcceptable'
ALREADY_EXISTS: Final = 'AlreadyExists'
CONFLICT: Final = 'Conflict'
EXPIRED: Final = 'Expired'
GONE: Final = 'Gone'
TOO_LARGE: Final = 'RequestEntityTooLarge'
UNSUPPORTED_MEDIA_TYPE: Final = 'UnsupportedMediaType'
INVALID: Final = 'Invalid'
TOO_MANY_REQUESTS: Final = 'TooManyRequests'
INTERNAL_ERROR: Final = 'InternalError'
SERVICE_UNAVAILABLE: Final = 'ServiceUnavailable'
SERVER_TIMEOUT: Final = 'ServerTimeout'
TIMEOUT: Final = 'Timeout'

CODES: Final[Mapping[str, int]] = {
    BAD_REQUEST: 400, UNAUTHORIZED: 401, FORBIDDEN: 403, NOT_FOUND: 404, METHOD_NOT_ALLOWED: 405, NOT_ACCEPTABLE: 406,
    ALREADY_EXISTS: 409, CONFLICT: 409, GONE: 410, EXPIRED: 410, TOO_LARGE: 413, UNSUPPORTED_MEDIA_TYPE: 415,
    INVALID: 422, TOO_MANY_REQUESTS: 429, SERVER_TIMEOUT: 500, INTERNAL_ERROR: 500, SERVICE_UNAVAILABLE: 503,
    TIMEOUT: 504,
}  # fmt: skip
"""Reason → HTTP status code."""


def status(
    reason: str,
    message: str,
    *,
    details: Mapping[str, Any] | None = None,
    causes: Iterable[Mapping[str, str]] = (),
    code: int | None = None,
) -> dict[str, Any]:
    """A failure `Status`; `code` only where the reason does not tell it."""
    body: dict[str, Any] = {
        'kind': 'Status',
        'apiVersion': 'v1',
        'metadata': {},
        'status': 'Failure',
        'message': message,
        'reason': reason,
        'code': code if code is not None else CODES.get(reason, 500),
    }
    found = dict(details or {})
    if listed := [dict(cause) for cause in causes]:
        found['causes'] = listed
    if found:
        body['details'] = found
    return body
