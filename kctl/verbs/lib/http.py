"""HTTP for a command that lives for a second: synchronous, standard library only.

`kclient` serves long-lived processes; importing its asynchronous stack costs more time than a whole `kctl get` should.
Requests go to the first server that accepts a connection; 429 is retried as often as the server asks, a few times.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from kclient.kubeconfig import ClientConfig
from kctl.verbs.lib.errors import Refused, Unreachable

Obj = dict[str, Any]

CONNECT_S = 5.0
ANSWER_S = 60.0
"""Longest silence of the server before a command gives up; streams have no such limit."""
TRIES_MAX = 5
"""Attempts of a request that is answered by 429."""
RETRY_AFTER_MAX_S = 10.0
JSON = 'application/json'


class Http:
    """One cluster. Raises Refused for an answer of 400 and above, Unreachable when there is no answer."""

    def __init__(self, config: ClientConfig, headers: Mapping[str, str]) -> None:
        self._config, self.headers = config, dict(headers)
        if config.token:
            self.headers['Authorization'] = f'Bearer {config.token}'
        self._tls = config.ssl_context()
        self._kept: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None, *, accept: str = JSON) -> Obj:
        return self.call('GET', path, params, headers={'Accept': accept})

    def call(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Obj:
        """The decoded answer."""
        raw = self.raw(method, path, params, body, headers)
        try:
            decoded = json.loads(raw)
        except ValueError:
            raise Unreachable(f'{method} {path}: the server did not answer with JSON') from None
        return decoded if isinstance(decoded, dict) else {'items': decoded}

    def raw(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        for attempt in range(TRIES_MAX):
            connection, reused = self._connection()
            try:
                response = self._send(connection, method, _url(path, params), body, headers)
                raw = response.read()
            except (http.client.HTTPException, ConnectionError, TimeoutError) as e:
                connection.close()
                self._kept = None
                if reused or (method == 'GET' and attempt == 0):
                    continue
                raise Unreachable(f'{method} {path}: {e or type(e).__name__}') from None
            if response.status == 429 and response.getheader('Retry-After') and attempt < TRIES_MAX - 1:
                asked = response.getheader('Retry-After', '1')
                threading.Event().wait(min(RETRY_AFTER_MAX_S, float(asked) if asked.isdigit() else 1.0))
                continue
            if response.status >= 400:
                raise Refused(_status(response, raw))
            return raw
        raise Unreachable(f'{method} {path}: the server closed the connection')

    def stream(
        self, path: str, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[bytes]:
        """Chunks as they arrive, until the server ends the answer."""
        connection = self._open()
        try:
            response = self._send(connection, 'GET', _url(path, params), None, headers)
            if response.status >= 400:
                raise Refused(_status(response, response.read()))
            if connection.sock is not None:
                connection.sock.settimeout(None)
            while chunk := response.read1(65_536):
                yield chunk
        except (http.client.HTTPException, ConnectionError, TimeoutError) as e:
            raise Unreachable(f'GET {path}: {e or type(e).__name__}') from None
        finally:
            connection.close()

    def lines(self, path: str, params: Mapping[str, Any] | None = None, *, accept: str = JSON) -> Iterator[bytes]:
        """The stream cut at newlines (watch frames)."""
        rest = b''
        for chunk in self.stream(path, params, {'Accept': accept}):
            *whole, rest = (rest + chunk).split(b'\n')
            yield from (line for line in whole if line.strip())

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        url: str,
        body: Any,
        headers: Mapping[str, str] | None,
    ) -> http.client.HTTPResponse:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**self.headers, **({'Content-Type': JSON} if data is not None else {}), **(headers or {})}
        connection.request(method, url, body=data, headers=sent)
        return connection.getresponse()

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        if self._kept is not None and self._kept.sock is not None:
            return self._kept, True
        self._kept = self._open()
        return self._kept, False

    def _open(self) -> http.client.HTTPConnection:
        problem = ''
        for server in self._config.servers:
            url = urlsplit(server)
            host, port = url.hostname or '', url.port or (443 if url.scheme == 'https' else 80)
            try:
                return self._connect(url.scheme, host, port)
            except ConnectionRefusedError:
                problem = problem or (
                    f'The connection to the server {host}:{port} was refused - did you specify the right host or port?'
                )
            except ssl.SSLError as e:
                problem = problem or f'Unable to connect to the server: tls: {e.reason or e}'
            except OSError as e:
                problem = problem or f'Unable to connect to the server: {host}:{port}: {e}'
        raise Unreachable(problem or 'the kubeconfig names no server')

    def _connect(self, scheme: str, host: str, port: int) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
        raw = socket.create_connection((host, port), timeout=CONNECT_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if scheme == 'https' and self._tls is not None:
            try:
                raw = self._tls.wrap_socket(raw, server_hostname=self._config.server_name or host)
            except BaseException:
                raw.close()
                raise
        raw.settimeout(ANSWER_S)
        connection.sock = raw
        return connection


def _url(path: str, params: Mapping[str, Any] | None) -> str:
    given = {k: v for k, v in (params or {}).items() if v not in (None, '', False)}
    given = {k: 'true' if v is True else v for k, v in given.items()}
    url = quote(path, safe="/:@!$&'()*+,;=~")
    return f'{url}?{urlencode(given, doseq=True)}' if given else url


def _status(response: http.client.HTTPResponse, raw: bytes) -> Obj:
    """The Status of a failure, or one made from what there is."""
    try:
        status = json.loads(raw)
    except ValueError:
        status = None
    if isinstance(status, dict) and status.get('kind') == 'Status':
        return {'code': response.status, **status}
    text = raw.decode('utf-8', 'replace').strip()[:500] or response.reason
    reason = {404: 'NotFound', 403: 'Forbidden', 503: 'ServiceUnavailable'}.get(response.status, '')
    return {'code': response.status, 'reason': reason, 'message': text}
