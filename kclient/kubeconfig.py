"""kubeconfig: which servers, whom to trust, who we are.

All clusters of the file that trust the same authority as the chosen context's cluster are taken as further servers
of one and the same cluster: a file with contexts `kubeling`, `kubeling-2`, `kubeling-3` lets a client fail over.
Source of the format: client-go tools/clientcmd/api/v1/types.go.
"""

from __future__ import annotations

import base64
import binascii
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kclient.errors import ConfigError
from kcore.env import Env


@dataclass(frozen=True, slots=True)
class Origin:
    """The files behind a ClientConfig, with what they held."""

    path: Path
    context: str | None
    contents: tuple[tuple[Path, bytes], ...]

    def changed(self, env: Env) -> bool:
        """Raises ConfigError when a file is gone."""
        try:
            return any(env.disk.read(path) != data for path, data in self.contents)
        except OSError as e:
            raise ConfigError(f'{self.path}: {e}') from e


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """How to reach one cluster."""

    servers: tuple[str, ...]
    """Base URLs, the preferred one first."""
    ca_data: bytes | None = None
    """PEM; None trusts the system's authorities."""
    client_cert: bytes | None = field(default=None, repr=False)
    client_key: bytes | None = field(default=None, repr=False)
    token: str = field(default='', repr=False)
    namespace: str = 'default'
    """The context's namespace; only the command line uses it."""
    insecure: bool = False
    server_name: str = ''
    """Name to expect in the server's certificate instead of the URL's host."""
    origin: Origin | None = field(default=None, compare=False, repr=False)
    """Where this was read; None when nothing can change."""

    def current(self, env: Env) -> ClientConfig:
        """This very object, or what its files say now when they have changed. Raises ConfigError."""
        if self.origin is None or not self.origin.changed(env):
            return self
        return load(self.origin.path, env, self.origin.context)

    def ssl_context(self) -> ssl.SSLContext | None:
        """None when no server speaks TLS. Raises ConfigError on unusable PEM."""
        if not any(s.startswith('https:') for s in self.servers):
            return None
        try:
            cadata = self.ca_data.decode('ascii') if self.ca_data else None
            context = ssl.create_default_context(cadata=cadata)
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.client_cert and self.client_key:
                _load_chain(context, self.client_cert, self.client_key)
        except (ssl.SSLError, UnicodeDecodeError, ValueError) as e:
            raise ConfigError(f'kubeconfig: certificate or key cannot be read: {e}') from e
        return context


def load(path: Path, env: Env, context: str | None = None) -> ClientConfig:
    """Read a kubeconfig. Relative paths inside are relative to the file. Raises ConfigError naming file and field."""
    try:
        text = env.disk.read(path)
        doc = yaml.safe_load(text)
    except FileNotFoundError:
        raise ConfigError(f'{path}: no such kubeconfig file') from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f'{path}: cannot be read as a kubeconfig: {e}') from e
    if not isinstance(doc, dict):
        raise ConfigError(f'{path}: is not a kubeconfig: a mapping is expected')
    return _Reader(path, env, doc, text).client_config(context)


class _Reader:
    def __init__(self, path: Path, env: Env, doc: dict[str, Any], text: bytes) -> None:
        self._path, self._env, self._doc = path, env, doc
        self._contents: list[tuple[Path, bytes]] = [(path, text)]

    def client_config(self, context: str | None) -> ClientConfig:
        wanted = context or str(self._doc.get('current-context') or '')
        if not wanted:
            raise ConfigError(f'{self._path}: current-context is not set')
        chosen = self._named('contexts', 'context', wanted)
        cluster = self._named('clusters', 'cluster', str(chosen.get('cluster') or ''))
        user = self._named('users', 'user', str(chosen['user'])) if chosen.get('user') else {}
        if 'exec' in user or 'auth-provider' in user:
            raise ConfigError(f'{self._path}: users[].user.exec and auth-provider are not supported')
        ca = self._data(cluster, 'certificate-authority')
        token = self._data(user, 'token', encoded=False)
        servers = self._servers(cluster, ca)
        certificate, key = self._data(user, 'client-certificate'), self._data(user, 'client-key')
        return ClientConfig(
            servers=servers,
            ca_data=ca,
            client_cert=certificate,
            client_key=key,
            token=token.decode('utf-8').strip() if token else '',
            namespace=str(chosen.get('namespace') or 'default'),
            insecure=bool(cluster.get('insecure-skip-tls-verify')),
            server_name=str(cluster.get('tls-server-name') or ''),
            origin=Origin(self._path, context, tuple(self._contents)),
        )

    def _servers(self, cluster: dict[str, Any], ca: bytes | None) -> tuple[str, ...]:
        servers = [self._server(cluster)]
        for entry in self._doc.get('clusters') or ():
            other = entry.get('cluster') or {}
            if ca is not None and other is not cluster and self._data(other, 'certificate-authority') == ca:
                servers.append(self._server(other))
        return tuple(dict.fromkeys(servers))

    def _server(self, cluster: dict[str, Any]) -> str:
        server = str(cluster.get('server') or '')
        if not server.startswith(('http://', 'https://')):
            raise ConfigError(f'{self._path}: clusters[].cluster.server: {server!r} is not an http or https URL')
        return server.rstrip('/')

    def _named(self, section: str, key: str, name: str) -> dict[str, Any]:
        for entry in self._doc.get(section) or ():
            if isinstance(entry, dict) and entry.get('name') == name:
                return dict(entry.get(key) or {}) if section != 'clusters' else (entry.get(key) or {})
        raise ConfigError(f'{self._path}: {section}: there is no {key} named {name!r}')

    def _data(self, entry: dict[str, Any], field_name: str, *, encoded: bool = True) -> bytes | None:
        """`<field>-data` (base64), or `<field>` as a path; the token is plain text or `tokenFile`."""
        if not encoded:
            if entry.get(field_name):
                return str(entry[field_name]).encode()
            file = entry.get(f'{field_name}File')
        else:
            inline = entry.get(f'{field_name}-data')
            if inline:
                try:
                    return base64.b64decode(inline, validate=True)
                except (binascii.Error, ValueError) as e:
                    raise ConfigError(f'{self._path}: {field_name}-data is not base64: {e}') from e
            file = entry.get(field_name)
        if not file:
            return None
        path = self._path.parent / str(file)
        try:
            data = self._env.disk.read(path)
        except OSError as e:
            raise ConfigError(f'{self._path}: {field_name}: {e}') from e
        self._contents.append((path, data))
        return data


def _load_chain(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """OpenSSL's Python binding reads chains from files only: a private one that lives for this call."""
    with tempfile.NamedTemporaryFile(prefix='kubeling-', suffix='.pem') as file:  # mode 0600
        file.write(cert + b'\n' + key)
        file.flush()
        context.load_cert_chain(file.name)
