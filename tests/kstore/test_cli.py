"""`python -m kstore VERB` against a member in this process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kcore import log
from kstore.cli import _compare, _operation, main
from kstore.output import UsageError

Stores = Callable[..., Awaitable[Any]]


@pytest.fixture(autouse=True)
def _log_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` would log to this test's standard error for the rest of the run, long after it was closed."""
    monkeypatch.setattr(log, 'setup', lambda *_, **__: None)


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
    assert [list(result) for result in rows[0]['results']] == [['put'], ['kvs']]
    assert rows[0]['results'][1]['kvs'][0]['value'] == '1'
    code, rows, _ = await kstore(store, 'status')
    assert (code, rows[0]['role'], rows[0]['revision']) == (0, 'leader', 3)
    assert (await kstore(store, 'del', '/', '--prefix'))[1] == [{'deleted': 2, 'revision': 4}]
    assert (await kstore(store, 'get', '/a'))[0] == 1


async def test_a_failure_is_one_line_and_exit_code_one(stores: Stores):
    code, rows, err = await kstore(await stores(1), 'compact', '99')
    assert (code, rows) == (1, [])
    assert err == 'kstore: revision 99 is in the future: the store is at 1\n'


@pytest.mark.parametrize(
    ('argv', 'text'),
    [
        (
            ['put', 'k', '1', '--lease', '99999999999999999999'],
            "argument --lease: '99999999999999999999': wants a number",
        ),
        (['get', 'k', '--rev', '-3'], "argument --rev: '-3': wants a number from 0"),
        (['get', 'k', '--limit', 'x'], "argument --limit: 'x': wants a whole number"),
        (['get', 'k', '--timeout', '0'], "argument --timeout: '0': wants seconds"),
        (['get', 'k', '--endpoints', '127.0.0.1:99999'], 'wants HOST:PORT,HOST:PORT'),
        (['get', 'k', '--endpoints', 'somewhere'], 'wants HOST:PORT,HOST:PORT'),
        (['get', 'k', 'z', '--prefix'], '--prefix and the end of a range'),
        (['get', 'k', '--tls-cert', 'c.pem'], '--tls-cert, --tls-key and --tls-ca go together'),
        (['lease', 'grant'], 'lease grant wants a TTL in seconds'),
        (['lease', 'revoke'], 'lease revoke wants a lease id'),
        (['txn'], 'txn wants --then or --else'),
        (['members', 'add', '4'], 'members add wants ID HOST:PORT'),
        (['snapshot'], 'the following arguments are required: ACTION'),
        (['snapshot', 'restore', 'f', '--data-dir', 'd', '--members', '0'], "argument --members: '0': wants ID,ID,ID"),
        (['frobnicate'], "invalid choice: 'frobnicate'"),
    ],
)
def test_wrong_usage_names_the_argument_and_is_exit_code_two(
    argv: list[str], text: str, capsys: pytest.CaptureFixture[str]
):
    try:
        code: Any = main(argv)
    except SystemExit as e:
        code = e.code
    assert code == 2
    assert text in capsys.readouterr().err


def test_every_verb_explains_itself_and_help_lists_them(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(['help'])
    listed = capsys.readouterr().out
    for verb in ('status', 'members', 'get', 'put', 'del', 'watch', 'txn', 'lease', 'compact', 'defrag', 'snapshot',
                 'move-leader', 'alarm', 'recover', 'usage', 'hash'):  # fmt: skip
        assert f'    {verb}' in listed
        with pytest.raises(SystemExit) as done:
            main([verb, '--help'])
        assert done.value.code == 0


async def test_a_value_is_shown_whole_and_cannot_harm_the_terminal(stores: Stores):
    store = await stores(1)
    value = b'[/x] \xff \x1b[31m ' + b'long ' * 40
    await (await store.client()).put(b'[bold]', value)
    where = ','.join(f'{host}:{port}' for host, port in store.endpoints)
    child = await asyncio.create_subprocess_exec(
        sys.executable, '-m', 'kstore', 'get', '[bold]', '--endpoints', where, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    assert child.returncode == 0
    assert b'[bold]  [/x] \\xff \\x1b[31m ' + b'long ' * 40 in out


async def test_what_is_not_there_is_exit_code_one_and_says_so(stores: Stores):
    store = await stores(1)
    assert await kstore(store, 'get', 'nope') == (1, [], "kstore: there is no key 'nope'\n")
    code, _, err = await kstore(store, 'lease', 'ttl', '5')
    assert (code, err) == (1, 'kstore: there is no lease 5, or none any more\n')


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
