"""`python -m kstore VERB` against a member in this process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
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


async def test_a_cluster_is_looked_after_from_the_command_line(stores: Stores, tmp_path: Path):
    store = await stores(3)
    assert (await kstore(store, 'put', '/a', '1'))[0] == 0
    leader = await store.leader()
    target = leader % 3 + 1
    assert (await kstore(store, 'move-leader', str(target)))[1] == [{'leader': target}]
    code, rows, _ = await kstore(store, 'members')
    assert (code, [(r['member'], r['role']) for r in rows]) == (0, [(1, 'voter'), (2, 'voter'), (3, 'voter')])
    code, rows, _ = await kstore(store, 'hash')
    assert (code, len({r['hash'] for r in rows})) == (0, 1)
    assert await kstore(store, 'alarm', 'list') == (0, [], '')
    assert len((await kstore(store, 'defrag'))[1]) == 3
    code, rows, _ = await kstore(store, 'snapshot', 'save', str(tmp_path / 'backup'))
    assert (code, rows[0]['keys']) == (0, 1)
    assert (await kstore(store, 'snapshot', 'status', str(tmp_path / 'backup')))[1][0]['keys'] == 1
    target_dir = str(tmp_path / 'new')
    assert (await kstore(store, 'snapshot', 'restore', str(tmp_path / 'backup'), '--data-dir', target_dir))[0] == 0
    code, _, err = await kstore(store, 'members', 'remove', '7')
    assert (code, err) == (1, 'kstore: 7 is no member\n')
    code, _, err = await kstore(store, 'recover', '--data-dir', target_dir + 'x', '--id', '1', '--listen', 'a:1')
    assert (code, err) == (1, f'kstore: {target_dir}x is no data directory of a member\n')
