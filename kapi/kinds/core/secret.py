"""Secret: small sensitive data, base64 in JSON, with a type that says which keys it must have."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

import orjson

from kapi.kinds.base import PlainStrategy
from kapi.kinds.core.configmap import MAX_BYTES, frozen
from kapi.kinds.printing import AGE, count_of, text
from kapi.kinds.rules import complaints, immutable, invalid, required, too_long
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta import gvk, names

OPAQUE = 'Opaque'
SERVICE_ACCOUNT_TOKEN = 'kubernetes.io/service-account-token'  # noqa: S105 — a type, no secret
SERVICE_ACCOUNT_NAME = 'kubernetes.io/service-account.name'
_ONE_KEY = {'kubernetes.io/dockercfg': '.dockercfg', 'kubernetes.io/dockerconfigjson': '.dockerconfigjson'}
_KEYS = {'kubernetes.io/ssh-auth': ('ssh-privatekey',), 'kubernetes.io/tls': ('tls.crt', 'tls.key')}


class SecretStrategy(PlainStrategy):
    def default(self, obj: Obj) -> None:
        """`stringData` is write-only: it is folded into `data`, and wins."""
        if not obj.get('type'):
            obj['type'] = OPAQUE
        plain = obj.pop('stringData', None)
        if plain:
            data = obj.setdefault('data', {})
            for key, value in plain.items():
                data[key] = base64.b64encode(value.encode()).decode()

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        data = new.get('data') or {}
        for key in data:
            yield from complaints(f'data[{key}]', key, names.config_key(key))
        if sum(len(value) * 3 // 4 for value in data.values()) > MAX_BYTES:
            yield too_long('data', MAX_BYTES)
        yield from self._by_type(new, data)
        if old is not None:
            yield from immutable('type', new.get('type'), old.get('type'))
            if old.get('immutable'):
                yield from frozen(new, old, ('data',))

    def _by_type(self, new: Obj, data: dict[str, str]) -> Iterator[Invalid]:
        kind = new.get('type') or OPAQUE
        if kind == SERVICE_ACCOUNT_TOKEN:
            annotations = new['metadata'].get('annotations') or {}
            if not annotations.get(SERVICE_ACCOUNT_NAME):
                yield required(f'metadata.annotations[{SERVICE_ACCOUNT_NAME}]')
        elif kind in _ONE_KEY:
            key = _ONE_KEY[kind]
            if key not in data:
                yield required(f'data[{key}]')
            elif not _is_json(data[key]):
                yield invalid(f'data[{key}]', '<secret contents redacted>', 'invalid character in JSON')
        elif kind == 'kubernetes.io/basic-auth':
            if 'username' not in data and 'password' not in data:
                yield required('data[username]')
                yield required('data[password]')
        elif kind in _KEYS:
            for key in _KEYS[kind]:
                if key not in data:
                    yield required(f'data[{key}]')


def _is_json(encoded: str) -> bool:
    try:
        orjson.loads(base64.b64decode(encoded))
    except (ValueError, binascii.Error):
        return False
    return True


KIND = Kind(
    resource=gvk.SECRETS,
    strategy=SecretStrategy(),
    columns=(
        Col('Type', text('type'), description='What the secret is for.'),
        Col('Data', count_of('data'), 'string', description='Number of entries.'),
        AGE,
    ),
    selectable={'type': 'type'},
)
