"""The verbs of the command line that look after a cluster: members, leadership, backups, disasters."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kcore.env import Env
from kstore import backup
from kstore.client import StoreClient
from kstore.errors import StoreError
from kstore.output import Output, UsageError, show
from kstore.raft.errors import LogCorrupt

POLL_S = 0.02
SLOW_S = 60.0
"""Least deadline of what looks at a whole store."""

__all__ = ['OFFLINE', 'LogCorrupt', 'add_verbs', 'each']


async def each(args: argparse.Namespace) -> tuple[list[dict[str, Any]], int]:
    """Every endpoint's own status, with an `endpoint` field; exit code 1 when one does not answer."""
    found, code = [], 0
    for host, port in args.endpoints:
        try:
            async with StoreClient([(host, port)], Env.real(), tls=args.tls, deadline_s=args.timeout) as one:
                found.append({'endpoint': f'{host}:{port}', **await one.status()})
        except StoreError as e:
            code = 1
            where = f'{host}:{port}'
            print(f'kstore: {e}' if where in str(e) else f'kstore: {where}: {e}', file=sys.stderr)
    return found, code


async def members(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    """List, add, promote or remove."""
    if args.action != 'list' and not args.member:
        raise UsageError(f'members {args.action} wants a member id')
    match args.action:
        case 'add':
            if not args.address:
                raise UsageError('members add wants ID HOST:PORT')
            await client.member_add(args.member, args.address)
            if not args.json:
                known = {**(await client.status())['members'], args.member: args.address}
                peers = ','.join(f'{m}={a}' for m, a in known.items())
                print(f'start it: python -m kstore --id {args.member} --join --listen {args.address} --peers {peers}')
                print(f'then:     python -m kstore members promote {args.member}')
        case 'promote':
            await client.member_promote(args.member)
        case 'remove':
            await client.member_remove(args.member)
    await client.revision()  # what the member we ask says next is not older than this
    status = await client.status()
    rows: Iterable[tuple[Any, ...]] = (
        (m, address, 'learner' if m in status['learners'] else 'voter', m == status['leader'])
        for m, address in status['members'].items()
        if m in status['voters'] or m in status['learners']
    )
    out.rows(('member', 'address', 'role', 'leader'), list(rows))
    return 0


async def move_leader(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    """Returns once the member leads; exit code 1 when it does not in time."""
    await client.move_leader(args.member)
    try:
        async with asyncio.timeout(args.timeout):
            while (leader := (await client.status())['leader']) != args.member:  # noqa: ASYNC110 — another process decides
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        print(f'kstore: member {args.member} did not take over within {args.timeout:g} s', file=sys.stderr)
        return 1
    out.object({'leader': leader})
    return 0


async def defrag(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    """Each endpoint in turn, online. Never needed for room inside the quota: freed pages are used again anyway."""
    rows = []
    for host, port in args.endpoints:
        async with _one(args, host, port) as one:
            before, after = await one.defragment()
        rows.append((f'{host}:{port}', before, after))
    out.rows(('endpoint', 'before_bytes', 'after_bytes'), rows)
    return 0


async def content_hash(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    """Every endpoint's contents at one revision; exit code 1 when they differ."""
    revision = args.rev or await client.revision()
    rows = []
    for host, port in args.endpoints:
        async with _one(args, host, port) as one:
            await one.revision()  # it has caught up with us
            rows.append((f'{host}:{port}', revision, f'{(await one.content_hash(revision))[1]:08x}'))
    out.rows(('endpoint', 'revision', 'hash'), rows)
    return int(len({row[2] for row in rows}) > 1)


async def usage(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    """Who fills the store: live keys and their bytes by prefix, the biggest first."""
    found = await client.usage(args.prefix.encode(), depth=args.depth)
    total = sum(size for _, _, size in found) or 1
    rows = [(show(name) or '(others)', keys, size, f'{size / total:.1%}') for name, keys, size in found]
    out.rows(('prefix', 'keys', 'bytes', 'share'), rows)
    return 0


async def alarm(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    """What is wrong now, by member; alarms end by themselves. Exit code 1 when there is one."""
    found, code = await each(args)
    rows = [(s['endpoint'], s['member'], name) for s in found for name in s['alarms']]
    out.rows(('endpoint', 'member', 'alarm'), rows)
    return code or int(bool(rows))


def _one(args: argparse.Namespace, host: str, port: int) -> StoreClient:
    return StoreClient([(host, port)], Env.real(), tls=args.tls, deadline_s=max(args.timeout, SLOW_S))


async def snapshot_save(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    env = Env.real()
    size = await backup.save(client.snapshot(), args.file, env)
    out.object({'file': str(args.file), **backup.summarize(args.file, env)._asdict(), 'size_bytes': size})
    return 0


async def snapshot_status(args: argparse.Namespace, out: Output) -> int:
    out.object({'file': str(args.file), **backup.summarize(args.file, Env.real())._asdict()})
    return 0


async def snapshot_restore(args: argparse.Namespace, out: Output) -> int:
    found = await backup.restore(args.file, args.data_dir, args.members, Env.real(), bump=args.bump_revision)
    out.object({'data_dir': str(args.data_dir), **found._asdict()})
    return 0


async def recover(args: argparse.Namespace, out: Output) -> int:
    found = await backup.recover(args.data_dir, args.id, args.listen, Env.real())
    out.object({'data_dir': str(args.data_dir), **found._asdict()})
    if not args.json:
        print(f'start it: python -m kstore --id {args.id} --listen {args.listen} --data-dir {args.data_dir}')
    return 0


OFFLINE = (snapshot_status, snapshot_restore, recover)
"""Verbs that work on files and need no server."""


def add_verbs(verb: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    sub = verb('members', members, 'list members, add a learner, promote it, remove a member')
    sub.add_argument('action', nargs='?', default='list', choices=('list', 'add', 'promote', 'remove'))
    sub.add_argument('member', nargs='?', type=int, default=0, metavar='ID')
    sub.add_argument('address', nargs='?', metavar='HOST:PORT')
    sub = verb('usage', usage, 'who fills the store: keys and bytes by prefix')
    sub.add_argument('prefix', nargs='?', default='', help='only keys that begin with PREFIX')
    sub.add_argument('--depth', type=int, default=2, help='parts of the key that tell prefixes apart')
    verb('defrag', defrag, 'give unused space of each member back to the disk')
    verb('hash', content_hash, "compare all members' contents").add_argument('--rev', type=int, default=0)
    verb('alarm', alarm, 'what is wrong now').add_argument('action', nargs='?', default='list', choices=('list',))
    sub = verb('move-leader', move_leader, 'hand leadership to a member')
    sub.add_argument('member', type=int, metavar='ID')
    sub = verb('recover', recover, 'after a lost majority: make this stopped member the only one')
    sub.add_argument('--data-dir', type=Path, required=True)
    sub.add_argument('--id', type=int, required=True)
    sub.add_argument('--listen', required=True, metavar='HOST:PORT')


def add_snapshots(verbs: Any, common: argparse.ArgumentParser) -> None:
    text = 'write a backup, check one, or make a data directory from one'
    actions = verbs.add_parser('snapshot', help=text, description=text, allow_abbrev=False).add_subparsers(
        dest='action', required=True, metavar='ACTION'
    )

    def action(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = actions.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )
        sub.set_defaults(run=run)
        sub.add_argument('file', type=Path, help='the backup')
        return sub

    action('save', snapshot_save, 'write a consistent backup while serving')
    action('status', snapshot_status, 'check a backup')
    sub = action('restore', snapshot_restore, 'make a data directory from a backup, for a new cluster')
    sub.add_argument('--data-dir', type=Path, required=True, help='to be made; empty or missing')
    sub.add_argument('--members', type=_ids, default=(1,), metavar='1,2,3', help='ids of all members to be')
    sub.add_argument('--bump-revision', type=int, default=0, metavar='N', help='make old watchers start over')


def _ids(text: str) -> tuple[int, ...]:
    try:
        found = tuple(sorted({int(part) for part in text.split(',')}))
    except ValueError:
        found = ()
    if not found or not all(0 < member < 1 << 31 for member in found):
        raise argparse.ArgumentTypeError(f'{text!r}: wants ID,ID,ID, each from 1 to 2^31-1')
    return found
