"""Tokens from a file (`token,user,uid,"group,group"` a line) and bootstrap tokens from Secrets of kube-system.

Comparison takes the same time wherever two tokens differ. Source: plugin/pkg/auth/authenticator/token/{tokenfile,
bootstrap}.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kapi.authn.bearer import Identified
from kapi.authn.user import AUTHENTICATED, User
from kapi.storage.cache import Cache
from kcore.env import Env
from kcore.meta.jointoken import TOKEN
from kcore.meta.times import parse_time
from kcore.tasks import BadSetting

BOOTSTRAP_TYPE = 'bootstrap.kubernetes.io/token'
BOOTSTRAPPERS = 'system:bootstrappers'


class BadTokenFile(BadSetting):
    """A token file that cannot be used; the text names the line."""


class StaticTokens:
    name = 'token file'

    def __init__(self, path: Path, env: Env) -> None:
        """Raises BadTokenFile."""
        self._users: dict[str, User] = {}
        try:
            lines = env.disk.read(path).decode().splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise BadTokenFile(f'--token-auth-file {path}: {e}') from None
        for number, row in enumerate(csv.reader(lines), 1):
            if not row:
                continue
            if len(row) < 3 or not row[0] or not row[1]:
                raise BadTokenFile(f'--token-auth-file {path}: line {number}: token,user,uid expected')
            groups = tuple(g.strip() for g in row[3].split(',') if g.strip()) if len(row) > 3 else ()
            self._users[row[0]] = User(row[1], (*groups, AUTHENTICATED), row[2])

    async def identify(self, token: str, audiences: Sequence[str]) -> Identified | None:
        found: User | None = None
        for known, user in self._users.items():
            if hmac.compare_digest(known.encode(), token.encode()):
                found = user
        return Identified(found, tuple(audiences)) if found is not None else None


class BootstrapTokens:
    """Tokens with which a new node introduces itself: Secret `bootstrap-token-<id>`."""

    name = 'bootstrap token'

    def __init__(self, cache: Cache, env: Env) -> None:
        self._cache = cache
        self._env = env

    async def identify(self, token: str, audiences: Sequence[str]) -> Identified | None:
        match = TOKEN.fullmatch(token)
        if match is None:
            return None
        entry = self._cache.peek(f'/registry/secrets/kube-system/bootstrap-token-{match[1]}')
        if entry is None or entry.obj.get('type') != BOOTSTRAP_TYPE or 'deletionTimestamp' in entry.obj['metadata']:
            return None
        data = _plain(entry.obj)
        good = (
            hmac.compare_digest(data.get('token-secret', '').encode(), match[2].encode())
            and data.get('token-id') == match[1]
        )
        if not good or data.get('usage-bootstrap-authentication') != 'true' or self._expired(data):
            return None
        extra = tuple(g for g in data.get('auth-extra-groups', '').split(',') if g.startswith(f'{BOOTSTRAPPERS}:'))
        return Identified(
            User(f'system:bootstrap:{match[1]}', (BOOTSTRAPPERS, *extra, AUTHENTICATED)), tuple(audiences)
        )

    def _expired(self, data: dict[str, str]) -> bool:
        until = data.get('expiration')
        if not until:
            return False
        try:
            return parse_time(until) <= self._env.clock.wall()
        except ValueError:
            return True


def _plain(secret: dict[str, Any]) -> dict[str, str]:
    found = {}
    for key, value in (secret.get('data') or {}).items():
        try:
            found[key] = base64.b64decode(value).decode()
        except (binascii.Error, UnicodeDecodeError):
            found[key] = ''
    return found
