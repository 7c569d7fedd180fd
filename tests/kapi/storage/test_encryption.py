"""Secrets at rest are sealed, and everything above the driver sees clear text."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from kapi.storage.base import Versioned
from kapi.storage.encryption import MAGIC, BadKeyFile, EncryptedStorage, Sealed, Sealer, load_keys
from kapi.storage.urls import open_storage

KEY = '/registry/secrets/default/s'
ONE, TWO = {'one': b'1' * 32}, {'two': b'2' * 32}


@pytest.fixture
def inner(env: Any) -> Any:
    return open_storage('memory://', env)


async def same(_: Versioned) -> bytes:
    return b'{"x":"hunter2"}'


async def test_values_are_sealed_below_and_clear_above(inner: Any) -> None:
    storage = EncryptedStorage(inner, Sealer(ONE))
    made = await storage.create(KEY, b'{"x":"hunter2"}')
    raw = await inner.get(KEY)
    assert raw.value.startswith(MAGIC)
    assert b'hunter2' not in raw.value
    assert (await storage.get(KEY)).value == made.value == b'{"x":"hunter2"}'
    assert (await storage.list('/registry/secrets/')).items[0].value == made.value
    await storage.create('/registry/pods/default/p', b'{}')
    assert (await inner.get('/registry/pods/default/p')).value == b'{}'
    async for batch in storage.watch('/registry/', from_rv=made.rv - 1):
        assert batch.events[0].value == made.value
        break


@pytest.mark.parametrize('stale', [False, True])
async def test_an_equal_value_is_not_written(inner: Any, stale: bool) -> None:
    storage = EncryptedStorage(inner, Sealer(ONE))
    made = await storage.create(KEY, b'{"x":"hunter2"}')
    again = await storage.update(KEY, same, origin=made if stale else None)
    assert (again.rv, again.value) == (made.rv, made.value)


async def test_rotation_seals_anew_and_old_keys_may_go(inner: Any) -> None:
    await EncryptedStorage(inner, Sealer(ONE)).create(KEY, b'a')
    await inner.create('/registry/secrets/default/clear', b'b')
    rotated = EncryptedStorage(inner, Sealer(TWO | ONE))
    assert (await rotated.get(KEY)).value == b'a'
    assert await rotated.reseal() == 2
    assert await rotated.reseal() == 0
    fresh = EncryptedStorage(inner, Sealer(TWO))
    assert [i.value for i in (await fresh.list('/registry/secrets/')).items] == [b'b', b'a']
    with pytest.raises(Sealed, match='needs the encryption key "two"'):
        await EncryptedStorage(inner, Sealer(ONE)).get(KEY)


def test_a_value_cannot_be_moved_or_changed() -> None:
    sealer = Sealer(ONE)
    value = sealer.seal(KEY, b'a')
    with pytest.raises(Sealed):
        sealer.open('/registry/secrets/other/s', value)
    with pytest.raises(Sealed):
        sealer.open(KEY, value[:-1] + bytes([value[-1] ^ 1]))
    with pytest.raises(Sealed):
        sealer.open(KEY, value[:40])


def test_key_files_are_read_strictly(tmp_path: Path, env: Any) -> None:
    good = base64.b64encode(b'k' * 32).decode()
    file = tmp_path / 'keys'
    file.write_text(f'# newest first\nb {good}\na {good}\n')
    assert list(load_keys(file, env)) == ['b', 'a']
    for bad in ('', 'a short', f'a {good}\na {good}', 'a', f'x:y {good}'):
        file.write_text(bad)
        with pytest.raises(BadKeyFile):
            load_keys(file, env)
