"""Who fills the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kstore import usage
from kstore.errors import BadRequest

Stores = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize(
    ('key', 'depth', 'prefix'),
    [
        (b'/registry/pods/ns/a', 2, b'/registry/pods/'),
        (b'/registry/pods/ns/a', 1, b'/registry/'),
        (b'/registry/pods/ns/a', 9, b'/registry/pods/ns/'),
        (b'locks/one', 2, b'locks/'),
        (b'/top', 2, b'/'),
        (b'plain', 2, b'plain'),
    ],
)
def test_a_key_counts_under_its_first_parts(key: bytes, depth: int, prefix: bytes) -> None:
    assert usage.prefix_of(key, depth) == prefix


async def test_live_keys_are_counted_by_prefix_the_biggest_first(stores: Stores, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(usage, 'SLICE_KEYS', 3)
    store = await stores(1)
    client = await store.client()
    for n in range(7):
        await client.put(b'/a/small/%d' % n, b'x')
    for n in range(4):
        await client.put(b'/a/big/%d' % n, bytes(1000))
    await client.delete(b'/a/small/0')
    found = await client.usage()
    assert [(prefix, keys) for prefix, keys, _ in found] == [(b'/a/big/', 4), (b'/a/small/', 6)]
    assert found[0][2] > 4000 > found[1][2]
    assert [keys for _, keys, _ in await client.usage(b'/a/small/', depth=1)] == [6]
    monkeypatch.setattr(usage, 'PREFIXES_MAX', 1)
    assert [(prefix, keys) for prefix, keys, _ in await client.usage()] == [(b'/a/big/', 4), (usage.REST, 6)]
    with pytest.raises(BadRequest, match='depth'):
        await client.usage(depth=0)
