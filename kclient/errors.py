"""What can go wrong when talking to the API: one class per Status reason that callers tell apart.

`from_status` is the only place that turns an HTTP answer into an exception; nothing of the HTTP library leaks.
"""

from __future__ import annotations

from typing import Any

Status = dict[str, Any]


class ClientError(Exception):
    """Root of everything this package raises."""


class ConfigError(ClientError):
    """A kubeconfig that cannot be used; the text names the file and the field."""


class Deposed(ClientError):
    """A write was refused because the writer's lease is no longer certain."""


class ApiError(ClientError):
    """The server answered with a failure."""

    def __init__(self, status: Status, *, retry_after_s: float | None = None) -> None:
        super().__init__(str(status.get('message') or status.get('reason') or f'status {status.get("code")}'))
        self.status = status
        self.retry_after_s = retry_after_s
        """What the server asked for in `Retry-After`, in seconds."""

    @property
    def code(self) -> int:
        return int(self.status.get('code') or 0)

    @property
    def reason(self) -> str:
        return str(self.status.get('reason') or '')

    @property
    def message(self) -> str:
        return str(self)

    def has_cause(self, reason: str) -> bool:
        """Whether `details.causes` names `reason`, as NamespaceTerminating does."""
        causes = (self.status.get('details') or {}).get('causes') or ()
        return any(c.get('reason') == reason for c in causes)


class BadRequest(ApiError):
    """400."""


class Unauthorized(ApiError):
    """401."""


class Forbidden(ApiError):
    """403, also for creates in a namespace that is going away."""


class NotFound(ApiError):
    """404."""


class MethodNotAllowed(ApiError):
    """405."""


class AlreadyExists(ApiError):
    """409 on create."""


class Conflict(ApiError):
    """409 on update: the object changed in between, or a precondition failed."""


class Expired(ApiError):
    """410: the asked revision is compacted; list again."""


class Invalid(ApiError):
    """422."""


class TooManyRequests(ApiError):
    """429 after all retries that the deadline allowed."""


class ServerFailed(ApiError):
    """500, and any 5xx without a class of its own."""


class Unavailable(ApiError):
    """503, or no server could be reached, or the connection broke before an answer came."""


class Timeout(ApiError):
    """504, or the request's deadline passed; a write may or may not have happened."""


_BY_CODE: dict[int, type[ApiError]] = {
    400: BadRequest, 401: Unauthorized, 403: Forbidden, 404: NotFound, 405: MethodNotAllowed, 409: Conflict,
    410: Expired, 422: Invalid, 429: TooManyRequests, 503: Unavailable, 504: Timeout,
}  # fmt: skip


def from_status(status: Status, *, retry_after_s: float | None = None) -> ApiError:
    """The exception for a Status; an unknown code becomes ServerFailed (5xx) or ApiError."""
    code = int(status.get('code') or 500)
    if code == 409 and status.get('reason') == 'AlreadyExists':
        return AlreadyExists(status, retry_after_s=retry_after_s)
    cls = _BY_CODE.get(code, ServerFailed if code >= 500 else ApiError)
    return cls(status, retry_after_s=retry_after_s)


def failure(code: int, reason: str, message: str) -> Status:
    """A Status made on this side of the wire."""
    return {
        'kind': 'Status', 'apiVersion': 'v1', 'metadata': {}, 'status': 'Failure',
        'code': code, 'reason': reason, 'message': message,
    }  # fmt: skip
