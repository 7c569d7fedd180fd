"""`python -m kstore VERB` against a member in this process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kstore.cli import _compare, _operation
from kstore.output import UsageError

Stores = Callable[..., Awaitable[Any]]


async def kstore(store: Any, *argv: str) -> tuple[int, list[Any], str]:
    """Exit code, JSON objects printed, standard error."""
    where = ','.join(f'{host}:{port}' for host, port in store.endpoints)
    child = await asyncio.create_subprocess_exec(
        sys.executable, '-m', 'kstore', *argv, '--endpoints', where, '--json', '--timeout', '10',
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await child.communicate()
    assert child.returncode is not None
    return child.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


async def test_what_is_put_is_shown_and_deleted(stores: Stores):
    store = await stores(1)
    assert await kstore(store, 'put', '/a', '1') == (0, [{'revision': 2}], '')
    code, rows, _ = await kstore(store, 'get', '/', '--prefix')
    assert (code, rows[0]['key'], rows[0]['value'], rows[0]['mod']) == (0, '/a', '1', 2)
    code, rows, _ = await kstore(
        store, 'txn', '--if', '/a', 'value', '=', '1', '--then', 'put', '/b', '2', '--then', 'get', '/a'
    )
    assert (code, rows[0]['succeeded']) == (0, True)
    code, rows, _ = await kstore(store, 'status')
    assert (code, rows[0]['role'], rows[0]['revision']) == (0, 'leader', 3)
    assert (await kstore(store, 'del', '/', '--prefix'))[1] == [{'deleted': 2, 'revision': 4}]
    assert (await kstore(store, 'get', '/a'))[0] == 1


async def test_a_failure_is_one_line_and_exit_code_one(stores: Stores):
    code, rows, err = await kstore(await stores(1), 'compact', '99')
    assert (code, rows) == (1, [])
    assert err == 'kstore: revision 99 is in the future: the store is at 1\n'


def test_malformed_transactions_name_what_is_wrong():
    with pytest.raises(UsageError, match='--if /a size = 1'):
        _compare(['/a', 'size', '=', '1'])
    with pytest.raises(UsageError, match='put KEY VALUE'):
        _operation(['put', '/a'])
