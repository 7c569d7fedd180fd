"""`python -m kstore VERB`: look into a running store and change it, as a table for people or `--json` for programs.

Every failure is one line on standard error and exit code 1; wrong usage is exit code 2.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from kcore import log
from kcore.config import split_address
from kcore.env import Env
from kcore.tls import BadCertificate, ClientTls, Identity
from kstore import cluster
from kstore.client import StoreClient
from kstore.errors import StoreError
from kstore.model import NO_END, Do, KeyValue, Relation, Target, prefix_end
from kstore.output import Output, UsageError, show

Verb = Callable[[StoreClient, argparse.Namespace, Output], Awaitable[int]]


def _row(kv: KeyValue) -> tuple[Any, ...]:
    return show(kv.key), show(kv.value), kv.create_revision, kv.mod_revision, kv.version, kv.lease


_KV = ('key', 'value', 'create', 'mod', 'version', 'lease')


def _span(args: argparse.Namespace) -> tuple[bytes, bytes | None]:
    key = args.key.encode()
    if args.prefix:
        return (key, prefix_end(key)) if key else (NO_END, NO_END)
    return key, args.end.encode() if args.end else None


async def status(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    """Every endpoint's own view; exit code 1 when one does not answer."""
    names = ('member', 'role', 'term', 'leader', 'applied_index', 'revision', 'compacted', 'watches', 'db_bytes')
    found, code = await cluster.each(args)
    out.rows(('endpoint', *names), [(s['endpoint'], *(s[n] for n in names)) for s in found])
    return code


async def get(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    start, end = _span(args)
    reply = await client.range(
        start, end, limit=args.limit, revision=args.rev, count_only=args.count_only, keys_only=args.keys_only,
        serializable=args.serializable,
    )  # fmt: skip
    if args.count_only:
        out.object({'count': reply.count, 'revision': reply.revision})
    else:
        out.rows(_KV, [_row(kv) for kv in reply.kvs])
    return 0 if reply.count or end is not None else 1


async def put(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    value = sys.stdin.buffer.read() if args.value == '-' else args.value.encode()
    reply = await client.put(args.key.encode(), value, lease=args.lease)
    out.object({'revision': reply.revision})
    return 0


async def delete(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    reply = await client.delete_range(*_span(args))
    out.object({'deleted': reply.deleted, 'revision': reply.revision})
    return 0


async def watch(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    start, end = _span(args)
    async with client.watch(start, end, revision=args.rev) as stream:
        async for batch in stream:
            for event in batch.events:
                fields = dict(zip(_KV, _row(event.kv), strict=True))
                out.object({'type': event.type, **fields})
    return 0


async def txn(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    """`--if KEY FIELD OP OPERAND`, `--then put KEY VALUE | del KEY | get KEY`, `--else ...`, each repeatable."""
    reply = await client.txn(
        [_compare(c) for c in args.conditions or ()],
        [_operation(o) for o in args.then or ()],
        [_operation(o) for o in args.otherwise or ()],
    )
    out.object({'succeeded': reply.succeeded, 'revision': reply.revision, 'results': [str(r) for r in reply.results]})
    return 0


def _compare(words: Sequence[str]) -> list[Any]:
    key, target, relation, operand = words
    relations = {'=': Relation.EQUAL, '>': Relation.GREATER, '<': Relation.LESS, '!=': Relation.NOT_EQUAL}
    try:
        what = Target[target.upper()]
        operand_ = operand.encode() if what is Target.VALUE else int(operand)
        return [key.encode(), None, int(what), int(relations[relation]), operand_]
    except (KeyError, ValueError):
        raise UsageError(f'--if {" ".join(words)}: wants KEY version|create|mod|value|lease =|!=|<|> OPERAND') from None


def _operation(words: Sequence[str]) -> list[Any]:
    match words:
        case ['put', key, value]:
            return [int(Do.PUT), key.encode(), value.encode()]
        case ['del', key]:
            return [int(Do.DELETE), key.encode()]
        case ['get', key]:
            return [int(Do.RANGE), key.encode()]
    raise UsageError(f'{" ".join(words)!r}: wants put KEY VALUE, del KEY or get KEY')


async def lease(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    match args.action:
        case 'grant':
            out.object({'lease': await client.lease_grant(args.number), 'ttl_s': args.number})
        case 'revoke':
            await client.lease_revoke(args.number)
            out.object({'lease': args.number, 'revoked': True})
        case 'keepalive':
            ttl_s = await client.lease_keepalive(args.number)
            out.object({'lease': args.number, 'ttl_s': ttl_s})
            return 0 if ttl_s else 1
        case 'ttl':
            reply = await client.lease_ttl(args.number)
            keys = [show(k) for k in reply.keys]
            out.object({'lease': reply.id, 'ttl_s': reply.ttl_s, 'remaining_s': reply.remaining_s, 'keys': keys})
        case _:
            out.rows(('lease',), [(number,) for number in await client.leases()])
    return 0


async def compact(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    out.object({'compacted': args.revision, 'revision': await client.compact(args.revision)})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='kstore', description='Talk to a running store.', allow_abbrev=False)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument('--endpoints', type=_endpoints, default=[('127.0.0.1', 2390)], metavar='H:P,H:P')
    common.add_argument('--json', action='store_true', help='one JSON object a line')
    common.add_argument('--timeout', type=float, default=5.0, metavar='SECONDS')
    for name in ('cert', 'key', 'ca'):
        common.add_argument(f'--tls-{name}', type=Path, metavar='FILE')
    verbs = parser.add_subparsers(dest='verb', required=True, metavar='VERB')

    def verb(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, parents=[common], help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    def span(sub: argparse.ArgumentParser) -> argparse.ArgumentParser:
        sub.add_argument('key')
        sub.add_argument('end', nargs='?', help='end of the range, exclusive')
        sub.add_argument('--prefix', action='store_true', help='all keys that begin with KEY')
        return sub

    verb('status', status, 'each member: role, term, revision')
    sub = span(verb('get', get, 'read a key, a range or a prefix'))
    sub.add_argument('--rev', type=int, default=0, help='at an old revision')
    sub.add_argument('--limit', type=int, default=0)
    for flag in ('--count-only', '--keys-only', '--serializable'):
        sub.add_argument(flag, action='store_true')
    sub = verb('put', put, 'write a key')
    sub.add_argument('key')
    sub.add_argument('value', help='- reads standard input')
    sub.add_argument('--lease', type=int, default=0)
    span(verb('del', delete, 'delete a key, a range or a prefix'))
    span(verb('watch', watch, 'follow changes')).add_argument(
        '--rev', type=int, default=0, help='from this revision on'
    )
    sub = verb('txn', txn, 'compare, then do one of two lists of operations')
    sub.add_argument('--if', nargs=4, action='append', dest='conditions', metavar=('KEY', 'FIELD', 'OP', 'OPERAND'))
    sub.add_argument('--then', nargs='+', action='append')
    sub.add_argument('--else', nargs='+', action='append', dest='otherwise')
    sub = verb('lease', lease, 'grant, keep alive, revoke or show leases')
    sub.add_argument('action', choices=('grant', 'keepalive', 'revoke', 'ttl', 'list'))
    sub.add_argument('number', nargs='?', type=int, default=0, help='TTL in seconds for grant, else the lease id')
    cluster.add_verbs(verb)
    verb('compact', compact, 'forget revisions below REVISION').add_argument('revision', type=int)
    return parser


def _endpoints(text: str) -> list[tuple[str, int]]:
    try:
        return [split_address(part) for part in text.split(',')]
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r}: wants HOST:PORT,HOST:PORT') from None


def _tls(args: argparse.Namespace) -> ClientTls:
    """Raises BadCertificate."""
    if not (args.tls_cert and args.tls_key and args.tls_ca):
        return None
    return Identity(Env.real(), (args.tls_cert, args.tls_key), (args.tls_ca,)).client


async def _run(args: argparse.Namespace) -> int:
    out = Output(args.json)
    if args.run in cluster.OFFLINE:
        return int(await args.run(args, out))
    async with StoreClient(args.endpoints, Env.real(), tls=args.tls, deadline_s=args.timeout) as client:
        code: int = await args.run(client, args, out)
        return code


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    if argv[0] == 'snapshot' and len(argv) > 1 and argv[1] in ('save', 'status', 'restore'):
        argv = [f'snapshot-{argv[1]}', *argv[2:]]
    args = _parser().parse_args(argv)
    log.setup('kstore', level='error')  # what goes wrong is said in one line, see below
    try:
        args.tls = _tls(args)
        return asyncio.run(_run(args))
    except UsageError as e:
        print(f'kstore: {e}', file=sys.stderr)
        return 2
    except (StoreError, OSError, BadCertificate, cluster.LogCorrupt) as e:
        print(f'kstore: {e}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
