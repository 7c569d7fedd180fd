"""Storage drivers by URL scheme: `memory://`, `kstore://host:port,host:port`. Each driver reads its own URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import SplitResult, urlsplit

from kapi.storage.base import Storage
from kapi.storage.memory import MemoryStorage
from kcore.env import Env


def _kstore(url: SplitResult, env: Env) -> Storage:
    from kapi.storage.kstore import KstoreStorage  # noqa: PLC0415 — a memory:// start need not load the store client

    return KstoreStorage(url, env)


DRIVERS: Mapping[str, Callable[[SplitResult, Env], Storage]] = {'memory': MemoryStorage, 'kstore': _kstore}


def open_storage(url: str, env: Env) -> Storage:
    """Raises ValueError naming the schemes there are."""
    parts = urlsplit(url)
    if parts.scheme not in DRIVERS:
        raise ValueError(f'unknown storage {url!r}; the schemes are {", ".join(sorted(DRIVERS))}')
    return DRIVERS[parts.scheme](parts, env)
