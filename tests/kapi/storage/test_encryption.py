"""Secrets at rest are sealed, and everything above the driver sees clear text."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from kapi.storage.base import Versioned
from kapi.storage.encryption import MAGIC, BadKeyFile, EncryptedStorage, Sealed, Sealer, encrypted, load_keys
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


def line(name: str, key: bytes) -> str:
    return f'{name} {base64.b64encode(key).decode()}\n'


async def test_a_new_first_key_seals_without_a_restart_and_earlier_ones_still_open(
    inner: Any, env: Any, tmp_path: Path
) -> None:
    file = tmp_path / 'keys'
    file.write_text(line('one', b'1' * 32))
    quick, slow = (encrypted(inner, file, env) for _ in range(2))
    assert isinstance(quick, EncryptedStorage)
    made = await quick.create(KEY, b'a')
    assert (quick.reseal_is_due, await quick.reseal(), quick.reseal_is_due) == (True, 0, False)
    file.write_text(line('two', b'2' * 32) + line('one', b'1' * 32))
    assert (quick.reseal_is_due, await quick.reseal(), quick.reseal_is_due) == (True, 1, False)
    assert (await inner.get(KEY)).value.startswith(MAGIC + b'two:')
    assert (await slow.get(KEY)).value == b'a'  # looks at the file when it meets the new key
    assert slow.reseal_is_due  # what it has sealed in the meantime
    file.write_text(line('two', b'2' * 32))
    assert quick.reseal_is_due
    async for batch in quick.watch('/registry/', from_rv=made.rv):
        assert (batch.events[0].value, batch.events[0].prev) == (b'a', b'a')  # `prev` is sealed by the key that went
        break


@pytest.mark.parametrize('bad', ['', 'two short', line('one', b'3' * 32), '\xff'])
async def test_a_key_file_gone_bad_leaves_the_keys_as_they_are(inner: Any, env: Any, tmp_path: Path, bad: str) -> None:
    file = tmp_path / 'keys'
    file.write_text(line('one', b'1' * 32))
    storage = encrypted(inner, file, env)
    assert isinstance(storage, EncryptedStorage)
    await storage.reseal()
    file.write_bytes(bad.encode('latin-1'))
    assert not storage.reseal_is_due
    await storage.create(KEY, b'a')
    assert (await storage.get(KEY)).value == b'a'
    assert (await inner.get(KEY)).value.startswith(MAGIC + b'one:')


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
