"""One HTTP connection pool to several servers of the same cluster.

A request goes to the server that answered last. When a connection cannot be made the next server is tried at once:
nothing was sent, so every method may move on. When a connection breaks later, only reads move on; a write may have
happened, and the caller hears Unavailable. `Retry-After` on 429 and 503 is honoured for every method, since the server
says that it did nothing.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
import structlog

from kclient.errors import ConfigError, Timeout, Unavailable, failure
from kclient.kubeconfig import ClientConfig
from kcore.env import Env

log = structlog.get_logger('kclient.transport')

CONNECTIONS_MAX = 100
"""Open connections a client; further requests wait for one."""
IDLE_S = 60.0
"""How long an idle connection is kept: a new one costs as much as several requests. API servers close after 90 s."""
CONNECT_TIMEOUT_S = 5.0
RETRIES_MAX = 8
"""Attempts after the first one of a request, over all servers."""
RETRY_AFTER_CAP_S = 10.0
"""Longest pause that a server's `Retry-After` can impose."""
RELOAD_S = 1.0
"""How often, at most, a request looks whether the credentials' files have changed."""
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
READS = frozenset({'GET', 'HEAD', 'OPTIONS'})
FAILED = '<error>'
"""The code of a request that nobody answered, as client-go counts it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, without its server."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    deadline_s: float | None = 30.0
    """For the whole request up to its headers, pauses included; None for ever."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of sending a Call once."""

    call: Call
    host: str
    """`address:port` of the server."""
    code: str
    """HTTP status, or FAILED."""
    seconds: float
    """Until the headers came."""
    attempt: int
    """0 for the first one."""


Observer = Callable[[Answer], None]


def open_connector(_env: Env) -> aiohttp.BaseConnector:
    """The connections of one client. Real ones, whatever the world; a test in virtual time puts its own here."""
    return aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=IDLE_S)


class HttpTransport:
    """Keep-alive, TLS, failover, pauses. Safe for concurrent use on one event loop."""

    def __init__(
        self, config: ClientConfig, env: Env, user_agent: str, observe: Observer = lambda answer: None
    ) -> None:
        """observe: hears of every attempt, whoever answered it."""
        self.config = config
        """As its files were when a request last looked."""
        self._env, self._observe = env, observe
        self._headers = {'User-Agent': user_agent, 'Accept': 'application/json'}
        self._tls: ssl.SSLContext | None = None
        self._looked = env.clock.monotonic()
        self._session: aiohttp.ClientSession | None = None
        self._current = 0
        self._closed = False

    @property
    def server(self) -> str:
        """The server that the next request goes to."""
        return self.config.servers[self._current]

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Unavailable(failure(503, 'ServiceUnavailable', 'the client is closed'))
        if self._session is None:  # made late: needs a running loop, and must not be shared over a fork
            self._tls = self.config.ssl_context()
            self._session = aiohttp.ClientSession(
                connector=open_connector(self._env),
                headers=self._headers,
                auto_decompress=True,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _refresh(self) -> None:
        """Take over new credentials; files that cannot be used for the moment leave the old ones in place."""
        now = self._env.clock.monotonic()
        if self.config.origin is None or now - self._looked < RELOAD_S:
            return
        self._looked = now
        try:
            fresh = self.config.current(self._env)
            if fresh is self.config:
                return
            tls = fresh.ssl_context()
        except ConfigError as e:
            log.warning('credentials were not read anew', err=str(e))
            return
        self.config, self._tls = fresh, tls
        self._current = min(self._current, len(fresh.servers) - 1)
        log.info('credentials were read anew', file=str(fresh.origin.path if fresh.origin else ''))

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def send(self, call: Call) -> aiohttp.ClientResponse:
        """Headers of the first answer that is final; the caller reads or releases the body.

        Raises Unavailable (nobody reachable, or a write's connection broke) and Timeout (the deadline passed).
        """
        try:
            async with asyncio.timeout(call.deadline_s):
                return await self._attempts(call)
        except TimeoutError:
            text = f'{call.method} {call.path}: no answer from {self.server} within {call.deadline_s:g} s'
            raise Timeout(failure(504, 'Timeout', text)) from None

    async def _attempts(self, call: Call) -> aiohttp.ClientResponse:
        attempt = 0
        while True:
            try:
                response = await self._observed(call, attempt)
            except aiohttp.ClientError as e:
                self._current = (self._current + 1) % len(self.config.servers)
                never_sent = isinstance(e, aiohttp.ClientConnectorError)
                if attempt >= RETRIES_MAX or not (never_sent or call.method in READS):
                    raise Unavailable(failure(503, 'ServiceUnavailable', f'{call.method} {call.path}: {e}')) from e
                if attempt + 1 >= len(self.config.servers):
                    if never_sent and len(self.config.servers) == 1:
                        raise Unavailable(failure(503, 'ServiceUnavailable', f'{call.method} {call.path}: {e}')) from e
                    await asyncio.sleep(min(0.05 * 2**attempt, 1.0) * (1 + self._env.rng.random()))
            else:
                pause = _retry_after(response)
                if pause is None or attempt >= RETRIES_MAX:
                    return response
                response.release()
                await asyncio.sleep(min(pause, RETRY_AFTER_CAP_S) * (1 + 0.1 * self._env.rng.random()))
            attempt += 1

    async def _observed(self, call: Call, attempt: int) -> aiohttp.ClientResponse:
        monotonic, host, code = self._env.clock.monotonic, self.server.partition('://')[2], FAILED
        began = monotonic()
        try:
            response = await self._once(call)
            code = str(response.status)
            return response
        finally:
            self._observe(Answer(call, host, code, monotonic() - began, attempt))

    async def _once(self, call: Call) -> aiohttp.ClientResponse:
        session = self._open()
        self._refresh()
        token = {'Authorization': f'Bearer {self.config.token}'} if self.config.token else {}
        return await session.request(
            call.method,
            self.server + call.path,
            params=call.params,
            data=call.body,
            headers={**token, **call.headers},
            ssl=self._tls if self._tls is not None else True,
            timeout=_TIMEOUT,
            server_hostname=self.config.server_name or None,
            allow_redirects=False,
        )


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds to wait before asking again; None when the answer is final."""
    if response.status not in (429, 503):
        return None
    try:
        return max(0.0, float(response.headers.get('Retry-After', '')))
    except ValueError:
        return None
