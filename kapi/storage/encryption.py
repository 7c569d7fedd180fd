"""Secrets at rest: a storage driver over a driver that seals what lies under certain prefixes.

Envelope: a data key seals values (AES-256-GCM, a fresh nonce each, the storage key as associated data, so that a value
cannot be moved to another name); the data key itself is sealed by a key of the operator's file and travels with every
value. A new data key is drawn at every start and after DATA_KEY_USES_MAX values. Rotation: put a new key on the first
line; the file is read again when it changes. Every line may open, the first one seals, and `reseal` writes anew what it
has not sealed. A key that was once read opens values until the process ends: events of the past may still be under way.
Source of the scheme: apiserver storage/value/encrypt/envelope (KMS v2), reduced to a local key file.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kapi.storage.base import Batch, Change, Check, Event, KeyMissing, Page, Storage, StorageError, Versioned
from kcore.env import Env
from kcore.tasks import BadSetting

log = structlog.get_logger('kapi.encryption')
PREFIXES = ('/registry/secrets/',)
MAGIC = b'kubeling:aesgcm:v1:'
NONCE_BYTES, KEY_BYTES, TAG_BYTES = 12, 32, 16
DATA_KEY_USES_MAX = 1 << 24
"""Values sealed with one data key, far below what random nonces allow; then a new one is drawn."""
OPENED_KEYS_MAX = 1_024
"""Data keys kept open, so that a list opens each once."""
RESEAL_PAGE_KEYS = 500
KEYS_LOOK_S = 2.0
"""How often the key file is looked at; besides, whenever a value names a key that we do not know."""


class BadKeyFile(BadSetting):
    """A key file that cannot be used; the text names the line, never the key."""


class Sealed(StorageError):
    """A value that none of our keys opens."""


class UnknownKey(Sealed):
    """A value sealed by a key of which we do not know."""


def _nonce() -> bytes:
    return AESGCM.generate_key(bit_length=128)[:NONCE_BYTES]


def load_keys(path: Path, env: Env) -> dict[str, bytes]:
    """`name base64` a line, the sealing key first. Raises BadKeyFile, OSError."""
    found: dict[str, bytes] = {}
    for number, line in enumerate(env.disk.read(path).decode().splitlines(), 1):
        if not line.strip() or line.startswith('#'):
            continue
        name, _, text = line.partition(' ')
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except binascii.Error:
            key = b''
        if len(key) != KEY_BYTES or not name or ':' in name or name in found:
            raise BadKeyFile(f'{path}: line {number}: NAME and {KEY_BYTES} bytes in base64 expected, names unique')
        found[name] = key
    if not found:
        raise BadKeyFile(f'{path}: no key')
    return found


@dataclass(slots=True)
class _DataKey:
    cipher: AESGCM
    wrapped: bytes
    uses: int = 0


class Sealer:
    """Seals and opens values. Pure but for the randomness of keys."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = {name: AESGCM(key) for name, key in keys.items()}
        self._name = next(iter(keys))
        self._data_key = self._draw()
        self._opened: dict[tuple[str, bytes], AESGCM] = {}

    def _draw(self) -> _DataKey:
        key, nonce = AESGCM.generate_key(bit_length=256), _nonce()
        wrapped = nonce + self._keys[self._name].encrypt(nonce, key, MAGIC + self._name.encode())
        return _DataKey(AESGCM(key), wrapped)

    @property
    def _head(self) -> bytes:
        return MAGIC + self._name.encode() + b':'

    def current(self, value: bytes) -> bool:
        """Whether the value is sealed by the first key."""
        return value.startswith(self._head)

    def seal(self, key: str, value: bytes) -> bytes:
        if self._data_key.uses >= DATA_KEY_USES_MAX:
            self._data_key = self._draw()
        self._data_key.uses += 1
        nonce = _nonce()
        return self._head + self._data_key.wrapped + nonce + self._data_key.cipher.encrypt(nonce, value, key.encode())

    def open(self, key: str, value: bytes) -> bytes:
        """Values in clear text pass. Raises Sealed."""
        if not value.startswith(MAGIC):
            return value
        name, _, body = value[len(MAGIC) :].partition(b':')
        size = NONCE_BYTES + KEY_BYTES + TAG_BYTES
        wrapped, nonce, sealed = body[:size], body[size : size + NONCE_BYTES], body[size + NONCE_BYTES :]
        try:
            return self._unwrap(name.decode(), wrapped).decrypt(nonce, sealed, key.encode())
        except (InvalidTag, UnicodeDecodeError, ValueError):
            raise Sealed(f'{key}: the stored value is damaged or was sealed for another name') from None

    def _unwrap(self, name: str, wrapped: bytes) -> AESGCM:
        found = self._opened.get((name, wrapped))
        if found is None:
            if name not in self._keys:
                raise UnknownKey(f'a stored value needs the encryption key "{name}", which is not in the key file')
            key = self._keys[name].decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], MAGIC + name.encode())
            if len(self._opened) >= OPENED_KEYS_MAX:
                self._opened.pop(next(iter(self._opened)))
            found = self._opened[name, wrapped] = AESGCM(key)
        return found


class KeyFile:
    """Keys that may change while we run; never fewer than before."""

    def __init__(self, path: Path, env: Env) -> None:
        """Raises BadKeyFile, OSError."""
        self._path = path
        self._env = env
        self._seen = load_keys(path, env)
        self._all = self._seen

    def sealer(self) -> Sealer:
        return Sealer(self._all)

    def renewed(self) -> Sealer | None:
        """A sealer of the keys as they are now; None while the file says the same, or nothing that can be used."""
        try:
            found = load_keys(self._path, self._env)
            for name in found.keys() & self._all.keys():
                if found[name] != self._all[name]:
                    raise BadKeyFile(
                        f'{self._path}: the key "{name}" is another than before; give a new key a new name'
                    )
        except (BadKeyFile, OSError, UnicodeDecodeError) as e:
            log.warning('encryption keys were not read anew', err=str(e))
            return None
        if list(found) == list(self._seen):
            return None
        self._seen, self._all = found, found | {n: k for n, k in self._all.items() if n not in found}
        log.info('encryption keys were read anew', first=next(iter(found)))
        return self.sealer()


class EncryptedStorage:
    """A `Storage` whose values under PREFIXES are sealed below it and clear above it.

    `renewed` gives a new sealer when there are other keys.
    """

    def __init__(self, inner: Storage, sealer: Sealer, renewed: Callable[[], Sealer | None] = lambda: None) -> None:
        self._inner = inner
        self._sealer = sealer
        self._renewed = renewed
        self._resealed_by: Sealer | None = None

    @property
    def reseal_is_due(self) -> bool:
        """Whether the first key is another than at the last `reseal`; looks at the keys."""
        self._renew()
        return self._sealer is not self._resealed_by

    def _renew(self) -> bool:
        renewed = self._renewed()
        self._sealer = renewed or self._sealer
        return renewed is not None

    def _open(self, key: str, value: bytes) -> bytes:
        try:
            return self._sealer.open(key, value)
        except UnknownKey:
            if not self._renew():  # else another server was faster to see a new key
                raise
        return self._sealer.open(key, value)

    def _clear(self, found: Versioned) -> Versioned:
        return replace(found, value=self._open(found.key, found.value)) if _covered(found.key) else found

    async def start(self) -> None:
        await self._inner.start()

    async def close(self) -> None:
        await self._inner.close()

    async def get(self, key: str) -> Versioned:
        return self._clear(await self._inner.get(key))

    async def list(self, prefix: str, *, rv: int = 0, limit: int = 0, after: str = '') -> Page:
        page = await self._inner.list(prefix, rv=rv, limit=limit, after=after)
        return Page([self._clear(item) for item in page.items], page.rv, page.remaining)

    async def create(self, key: str, value: bytes, *, ttl_s: int = 0) -> Versioned:
        if not _covered(key):
            return await self._inner.create(key, value, ttl_s=ttl_s)
        stored = await self._inner.create(key, self._sealer.seal(key, value), ttl_s=ttl_s)
        return replace(stored, value=value)

    async def update(self, key: str, change: Change, *, ttl_s: int = 0, origin: Versioned | None = None) -> Versioned:
        if not _covered(key):
            return await self._inner.update(key, change, ttl_s=ttl_s, origin=origin)

        async def sealed(current: Versioned) -> bytes:
            clear = self._clear(current)
            new = await change(clear)
            # An equal value is not written. `origin` comes in clear text, and is then compared as such.
            return current.value if new == clear.value else self._sealer.seal(key, new)

        return self._clear(await self._inner.update(key, sealed, ttl_s=ttl_s, origin=origin))

    async def delete(self, key: str, *, check: Check | None = None, origin: Versioned | None = None) -> Versioned:
        def clear_check(current: Versioned) -> None:
            if check is not None:
                check(self._clear(current))

        return self._clear(await self._inner.delete(key, check=clear_check, origin=origin))

    async def watch(self, prefix: str, *, from_rv: int) -> AsyncIterator[Batch]:
        async for batch in self._inner.watch(prefix, from_rv=from_rv):
            if any(_covered(e.key) for e in batch.events):
                yield Batch(batch.rv, [self._clear_event(e) if _covered(e.key) else e for e in batch.events])
            else:
                yield batch

    def _clear_event(self, event: Event) -> Event:
        prev = self._open(event.key, event.prev) if event.prev is not None else None
        return replace(event, value=self._open(event.key, event.value), prev=prev)

    async def current_revision(self) -> int:
        return await self._inner.current_revision()

    def nudge(self) -> None:
        self._inner.nudge()

    async def reseal(self) -> int:
        """Write anew what the first key has not sealed; returns how many values. Raises StorageUnavailable."""
        count, sealer = 0, self._sealer
        for prefix in PREFIXES:
            after = ''
            while True:
                page = await self._inner.list(prefix, limit=RESEAL_PAGE_KEYS, after=after)
                for item in page.items:
                    count += await self._reseal_one(item)
                if not page.remaining:
                    break
                after = page.items[-1].key
        self._resealed_by = sealer  # if there are newer keys by now, not all of it is theirs
        if count:
            log.info('values were sealed with the first key', count=count)
        return count

    async def _reseal_one(self, item: Versioned) -> int:
        if self._sealer.current(item.value):
            return 0

        async def again(current: Versioned) -> bytes:
            if self._sealer.current(current.value):
                return current.value
            clear = self._open(current.key, current.value)
            return self._sealer.seal(current.key, clear)

        try:
            await self._inner.update(item.key, again)
        except KeyMissing:
            return 0
        return 1


def _covered(key: str) -> bool:
    return key.startswith(PREFIXES)


def encrypted(storage: Storage, key_file: Path | None, env: Env) -> Storage:
    """`storage`, sealed when there is a key file. Raises BadKeyFile, OSError."""
    if key_file is None:
        return storage
    keys = KeyFile(key_file, env)
    return EncryptedStorage(storage, keys.sealer(), keys.renewed)
