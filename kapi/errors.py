"""Every error of the API server, and the one table that turns exceptions into Kubernetes `Status` objects.

Texts are upstream's (apimachinery/pkg/api/errors/errors.go), because clients and people match on them. Anything
that is not in the table is a bug of ours: the client gets a generic 500, the log gets the traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kapi.registry.strategy import Cause, Invalid
from kapi.storage import base as storage
from kcore.meta import status
from kcore.meta.gvk import Resource
from kcore.meta.selectors import SelectorError

Obj = dict[str, Any]


class ApiError(Exception):
    """A refusal with a message for the client; its class decides code and reason."""

    def __init__(
        self,
        message: str = '',
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.details = details
        self.headers = headers
        self.code = code


class BadRequest(ApiError):
    """The request cannot be understood."""


class Unauthorized(ApiError):
    """Credentials were given and are no good, or are needed and missing."""

    def __init__(self) -> None:
        super().__init__('Unauthorized')


class Forbidden(ApiError):
    """Understood, authenticated, refused."""

    @classmethod
    def on(cls, resource: Resource, name: str, why: str, **extra: Any) -> Forbidden:
        subject = f'{resource.qualified} "{name}"' if name else resource.qualified
        return cls(f'{subject} is forbidden: {why}', details=_details(resource, name, **extra))


class Denied(ApiError):
    """A refusal in the words of somebody else (a webhook), with their code, reason and details."""

    def __init__(self, message: str, *, reason: str, details: Mapping[str, Any], code: int) -> None:
        super().__init__(message, details=details, code=code)
        self.reason = reason


class NotFound(ApiError):
    @classmethod
    def of(cls, resource: Resource, name: str) -> NotFound:
        return cls(f'{resource.qualified} "{name}" not found', details=_details(resource, name))


class UnknownPath(ApiError):
    """404 as plain text, the way Go's server says it."""


class MethodNotAllowed(ApiError):
    def __init__(self, message: str = 'the server does not allow this method on the requested resource') -> None:
        super().__init__(message, details={})


class NotAcceptable(ApiError):
    pass


class UnsupportedMediaType(ApiError):
    pass


class AlreadyExists(ApiError):
    @classmethod
    def of(cls, resource: Resource, name: str) -> AlreadyExists:
        return cls(f'{resource.qualified} "{name}" already exists', details=_details(resource, name))


class Conflict(ApiError):
    @classmethod
    def of(cls, resource: Resource, name: str, why: str) -> Conflict:
        text = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
        return cls(text, details=_details(resource, name))


MODIFIED = 'the object has been modified; please apply your changes to the latest version and try again'


class Expired(ApiError):
    """410: the version asked for is gone. `continue_` lets a list go on at the latest version."""

    def __init__(self, message: str, *, continue_: str = '') -> None:
        super().__init__(message)
        self.continue_ = continue_


class TooLargeVersion(ApiError):
    """504: the resourceVersion asked for lies ahead."""

    def __init__(self, asked: int, current: int) -> None:
        super().__init__(
            f'Too large resource version: {asked}, current: {current}',
            details={
                'causes': [{'reason': 'ResourceVersionTooLarge', 'message': 'Too large resource version'}],
                'retryAfterSeconds': 1,
            },
            headers={'Retry-After': '1'},
        )


class TooLarge(ApiError):
    """413."""


CAUSES_MAX = 1_000
"""Each is told twice, and a body of three megabytes may break a hundred thousand rules."""


class InvalidObject(ApiError):
    """422 with one cause per broken rule, up to CAUSES_MAX."""

    def __init__(self, kind: str, group: str, name: str, broken: Sequence[Invalid]) -> None:
        broken = broken[:CAUSES_MAX]
        texts = [f'{i.field}: {i.message}' for i in broken]
        listed = texts[0] if len(texts) == 1 else f'[{", ".join(texts)}]'
        details: Obj = {'name': name} if name else {}
        if group:
            details['group'] = group
        details['kind'] = kind
        details['causes'] = [{'reason': i.cause, 'message': i.message, 'field': i.field} for i in broken]
        super().__init__(f'{kind}{"." + group if group else ""} "{name}" is invalid: {listed}', details=details)
        self.broken = broken

    @classmethod
    def plain(cls, message: str) -> InvalidObject:
        """422 about no field in particular."""
        e = cls('', '', '', [Invalid('', message)])
        e.args = (message,)
        e.details = {}
        return e

    @classmethod
    def single(
        cls, kind: str, group: str, field: str, message: str, cause: Cause = 'FieldValueForbidden'
    ) -> InvalidObject:
        return cls(kind, group, '', [Invalid(field, message, cause)])


class TooManyRequests(ApiError):
    def __init__(self, message: str, *, retry_after_s: int = 1, causes: Iterable[Mapping[str, str]] = ()) -> None:
        details: Obj = {'retryAfterSeconds': retry_after_s} if retry_after_s else {}
        if listed := list(causes):
            details['causes'] = listed
        headers = {'Retry-After': str(retry_after_s)} if retry_after_s else None
        super().__init__(message, details=details, headers=headers)


class InternalError(ApiError):
    """500 with a text of its own: something below failed in a way that the client should read."""

    def __init__(self, why: str) -> None:
        super().__init__(f'Internal error occurred: {why}', details={'causes': [{'message': why}]})


class Unavailable(ApiError):
    """503."""


class DeadlineExceeded(ApiError):
    """504: the request took longer than it may."""

    def __init__(self) -> None:
        super().__init__('request did not complete within the allotted timeout', details={})


def _details(resource: Resource, name: str, **extra: Any) -> Obj:
    found: Obj = {'name': name} if name else {}
    if resource.group:
        found['group'] = resource.group
    return {**found, 'kind': resource.plural, **extra}


STATUS: Mapping[type[BaseException], tuple[int, str]] = {
    BadRequest: (400, status.BAD_REQUEST),
    SelectorError: (400, status.BAD_REQUEST),
    Unauthorized: (401, status.UNAUTHORIZED),
    Forbidden: (403, status.FORBIDDEN),
    NotFound: (404, status.NOT_FOUND),
    Denied: (400, status.BAD_REQUEST),
    UnknownPath: (404, status.NOT_FOUND),
    MethodNotAllowed: (405, status.METHOD_NOT_ALLOWED),
    NotAcceptable: (406, status.NOT_ACCEPTABLE),
    AlreadyExists: (409, status.ALREADY_EXISTS),
    Conflict: (409, status.CONFLICT),
    Expired: (410, status.EXPIRED),
    TooLarge: (413, status.TOO_LARGE),
    UnsupportedMediaType: (415, status.UNSUPPORTED_MEDIA_TYPE),
    InvalidObject: (422, status.INVALID),
    TooManyRequests: (429, status.TOO_MANY_REQUESTS),
    InternalError: (500, status.INTERNAL_ERROR),
    Unavailable: (503, status.SERVICE_UNAVAILABLE),
    TooLargeVersion: (504, status.TIMEOUT),
    DeadlineExceeded: (504, status.TIMEOUT),
    TimeoutError: (504, status.TIMEOUT),
    storage.KeyMissing: (404, status.NOT_FOUND),
    storage.KeyExists: (409, status.ALREADY_EXISTS),
    storage.RevisionConflict: (409, status.CONFLICT),
    storage.Compacted: (410, status.EXPIRED),
    storage.FutureRevision: (504, status.TIMEOUT),
    storage.StorageUnavailable: (503, status.SERVICE_UNAVAILABLE),
    storage.StorageFull: (500, status.INTERNAL_ERROR),
    storage.ValueTooLarge: (413, status.TOO_LARGE),
    storage.StorageError: (500, status.INTERNAL_ERROR),
}


def known(exc: BaseException) -> bool:
    """Whether the exception, or one that caused it, is in the table."""
    return _find(exc) is not None


def _find(exc: BaseException) -> tuple[BaseException, int, str] | None:
    e: BaseException | None = exc
    while e is not None:
        for cls in type(e).__mro__:
            if cls in STATUS:
                return e, *STATUS[cls]
        e = e.__cause__
    return None


def to_status(exc: BaseException) -> Obj:
    """The Status body; its `code` is the HTTP status."""
    found = _find(exc)
    if found is None:
        return status.status(status.INTERNAL_ERROR, 'Internal error occurred: the server met an unexpected condition')
    e, code, reason = found
    override = getattr(e, 'code', None)
    text = str(e) or reason
    body = status.status(reason, text, details=getattr(e, 'details', None), code=override or code)
    if isinstance(e, Denied):
        body['reason'] = e.reason
        if not e.reason:
            del body['reason']
    if isinstance(e, Expired) and e.continue_:
        body['metadata'] = {'continue': e.continue_}
    return body


def headers_of(exc: BaseException) -> Mapping[str, str]:
    found = _find(exc)
    return (getattr(found[0], 'headers', None) or {}) if found else {}
