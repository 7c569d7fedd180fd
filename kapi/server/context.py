"""One request on its way through the pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from kapi.audit.audit import UNHEARD, Decision
from kapi.authn.user import ANONYMOUS, User
from kapi.flow.fairness import Seat
from kapi.registry.kind import Kind
from kapi.server.negotiation import PLAIN, Form
from kapi.server.requestinfo import RequestInfo

if TYPE_CHECKING:
    from kapi.server.service import ApiServer

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """A body that is put together only as it is sent."""

    size: int
    chunks: Iterator[bytes]


@dataclass(slots=True)
class Reply:
    """A complete answer."""

    body: bytes | Parts
    status: int = 200
    content_type: str = 'application/json'
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Context:
    server: ApiServer
    raw: web.BaseRequest
    info: RequestInfo
    audit_id: str
    user: User = ANONYMOUS
    form: Form = PLAIN
    kind: Kind | None = None
    warnings: list[str] = field(default_factory=list)
    reply: Reply | web.StreamResponse | None = None
    deadline: asyncio.Timeout | None = None
    answer_headers: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    """For the audit log."""
    audit_event: Obj | None = None
    audit: Decision = UNHEARD
    audit_body: bytes = b''
    """The request's body as it came, if the audit log wants it."""
    admitted: bool = False
    """Whether it is known who asks, and the request has had its turn."""
    seat: Seat | None = None
    on_exit: list[Callable[[], None]] = field(default_factory=list)

    @property
    def headers(self) -> Mapping[str, str]:
        return self.raw.headers

    @property
    def user_agent(self) -> str:
        return self.raw.headers.get('User-Agent', '')
