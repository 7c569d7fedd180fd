"""`python -m kstore VERB`: look into a running store and change it, as a table for people or `--json` for programs.

Every failure is one line on standard error and exit code 1; wrong usage is exit code 2.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
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
from kstore.model import (
    NO_END,
    DeleteReply,
    Do,
    KeyValue,
    RangeReply,
    Relation,
    SortOrder,
    SortTarget,
    Target,
    WriteReply,
    prefix_end,
)
from kstore.output import Output, UsageError, show

Verb = Callable[[StoreClient, argparse.Namespace, Output], Awaitable[int]]


def _row(kv: KeyValue) -> tuple[Any, ...]:
    return show(kv.key), show(kv.value), kv.create_revision, kv.mod_revision, kv.version, kv.lease


_KV = ('key', 'value', 'create', 'mod', 'version', 'lease')


def _span(args: argparse.Namespace) -> tuple[bytes, bytes | None]:
    key = os.fsencode(args.key)
    if args.prefix and args.end:
        raise UsageError('--prefix and the end of a range do not go together')
    if args.prefix:
        return (key, prefix_end(key)) if key else (NO_END, NO_END)
    return key, os.fsencode(args.end) if args.end else None


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
        serializable=args.serializable, sort=_order(args),
    )  # fmt: skip
    if args.count_only:
        out.object({'count': reply.count, 'revision': reply.revision})
    else:
        out.rows(_KV, [_row(kv) for kv in reply.kvs])
    if reply.count or end is not None:
        return 0
    print(f'kstore: there is no key {args.key!r}', file=sys.stderr)
    return 1


def _order(args: argparse.Namespace) -> tuple[int, int]:
    if args.sort_by == 'key' and not args.descending:
        return 0, 0  # the order it has anyway, and then a long answer may come in pieces
    return int(SortTarget[args.sort_by.upper()]), int(SortOrder.DESCEND if args.descending else SortOrder.ASCEND)


async def put(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    value = sys.stdin.buffer.read() if args.value == '-' else os.fsencode(args.value)
    reply = await client.put(os.fsencode(args.key), value, lease=args.lease)
    out.object({'revision': reply.revision})
    return 0


async def delete(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    reply = await client.delete_range(*_span(args))
    out.object({'deleted': reply.deleted, 'revision': reply.revision})
    return 0


async def watch(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    start, end = _span(args)
    async with client.watch(start, end, revision=args.rev, prev_kv=args.prev) as stream:
        async for batch in stream:
            for event in batch.events:
                fields = dict(zip(_KV, _row(event.kv), strict=True))
                prev = {'prev': show(event.prev.value) if event.prev else None} if args.prev else {}
                out.object({'type': event.type, **fields, **prev})
    return 0


async def txn(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    """`--if KEY FIELD OP OPERAND`, `--then put KEY VALUE | del KEY | get KEY`, `--else ...`, each repeatable."""
    if not (args.then or args.otherwise):
        raise UsageError('txn wants --then or --else, each with put KEY VALUE, del KEY or get KEY')
    reply = await client.txn(
        [_compare(c) for c in args.conditions or ()],
        [_operation(o) for o in args.then or ()],
        [_operation(o) for o in args.otherwise or ()],
    )
    out.object({'succeeded': reply.succeeded, 'revision': reply.revision, 'results': [_told(r) for r in reply.results]})
    return 0


def _told(result: WriteReply | DeleteReply | RangeReply) -> dict[str, Any]:
    match result:
        case DeleteReply():
            return {'deleted': result.deleted}
        case RangeReply():
            return {'kvs': [dict(zip(_KV, _row(kv), strict=True)) for kv in result.kvs]}
    return {'put': result.revision}


def _compare(words: Sequence[str]) -> list[Any]:
    key, target, relation, operand = words
    relations = {'=': Relation.EQUAL, '>': Relation.GREATER, '<': Relation.LESS, '!=': Relation.NOT_EQUAL}
    try:
        what = Target[target.upper()]
        operand_ = os.fsencode(operand) if what is Target.VALUE else _whole(operand)
        return [os.fsencode(key), None, int(what), int(relations[relation]), operand_]
    except (KeyError, ValueError, argparse.ArgumentTypeError):
        raise UsageError(f'--if {" ".join(words)}: wants KEY version|create|mod|value|lease =|!=|<|> OPERAND') from None


def _operation(words: Sequence[str]) -> list[Any]:
    match words:
        case ['put', key, value]:
            return [int(Do.PUT), os.fsencode(key), os.fsencode(value)]
        case ['del', key]:
            return [int(Do.DELETE), os.fsencode(key)]
        case ['get', key]:
            return [int(Do.RANGE), os.fsencode(key)]
    raise UsageError(f'{" ".join(words)!r}: wants put KEY VALUE, del KEY or get KEY')


async def lease(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    if args.action == 'list':
        out.rows(('lease',), [(number,) for number in await client.leases()])
        return 0
    if not args.number:
        raise UsageError(f'lease {args.action} wants {"a TTL in seconds" if args.action == "grant" else "a lease id"}')
    match args.action:
        case 'grant':
            out.object({'lease': await client.lease_grant(args.number), 'ttl_s': args.number})
        case 'revoke':
            await client.lease_revoke(args.number)
            out.object({'lease': args.number, 'revoked': True})
        case 'keepalive':
            ttl_s = await client.lease_keepalive(args.number)
            out.object({'lease': args.number, 'ttl_s': ttl_s})
            return 0 if ttl_s else _no_lease(args)
        case 'ttl':
            reply = await client.lease_ttl(args.number)
            keys = [show(k) for k in reply.keys]
            out.object({'lease': reply.id, 'ttl_s': reply.ttl_s, 'remaining_s': reply.remaining_s, 'keys': keys})
            return 0 if reply.ttl_s > 0 else _no_lease(args)
    return 0


def _no_lease(args: argparse.Namespace) -> int:
    print(f'kstore: there is no lease {args.number}, or none any more', file=sys.stderr)
    return 1


async def compact(client: StoreClient, args: argparse.Namespace, out: Output) -> int:
    out.object({'compacted': args.revision, 'revision': await client.compact(args.revision)})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='kstore', description='Talk to a running store.', allow_abbrev=False)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        '--endpoints', type=_endpoints, default=[('127.0.0.1', 2390)], metavar='H:P,H:P',
        help='members to ask, HOST:PORT,HOST:PORT (127.0.0.1:2390)',
    )  # fmt: skip
    common.add_argument('--json', action='store_true', help='one JSON object a line')
    common.add_argument('--timeout', type=_seconds, default=5.0, metavar='SECONDS', help='patience with the store (5)')
    for name, text in (('cert', 'our certificate (PEM)'), ('key', 'its private key'), ('ca', 'CA of the members')):
        common.add_argument(f'--tls-{name}', type=Path, metavar='FILE', help=text)
    verbs = parser.add_subparsers(dest='verb', required=True, metavar='VERB')

    def verb(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, parents=[common], help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    def span(sub: argparse.ArgumentParser) -> argparse.ArgumentParser:
        sub.add_argument('key', help='the key, or where the range begins')
        sub.add_argument('end', nargs='?', help='end of the range, exclusive')
        sub.add_argument('--prefix', action='store_true', help='all keys that begin with KEY')
        return sub

    verb('status', status, 'each member: role, term, revision')
    sub = span(verb('get', get, 'read a key, a range or a prefix'))
    sub.add_argument('--rev', type=_whole, default=0, metavar='N', help='at an old revision')
    sub.add_argument('--limit', type=_whole, default=0, metavar='N', help='at most so many keys')
    sub.add_argument('--count-only', action='store_true', help='how many keys there are')
    sub.add_argument('--keys-only', action='store_true', help='without the values')
    sub.add_argument('--serializable', action='store_true', help='what one member has, perhaps not the newest')
    orders = tuple(target.name.lower() for target in SortTarget)
    sub.add_argument('--sort-by', choices=orders, default='key', help='order of the answer')
    sub.add_argument('--descending', action='store_true', help='the other way round')
    sub = verb('put', put, 'write a key')
    sub.add_argument('key', help='the key')
    sub.add_argument('value', help='- reads standard input')
    sub.add_argument(
        '--lease', type=_whole, default=0, metavar='ID', help='the lease that deletes the key when it ends'
    )
    span(verb('del', delete, 'delete a key, a range or a prefix'))
    sub = span(verb('watch', watch, 'follow changes'))
    sub.add_argument('--rev', type=_whole, default=0, metavar='N', help='from this revision on')
    sub.add_argument('--prev', action='store_true', help='show the value before, too')
    sub = verb('txn', txn, 'compare, then do one of two lists of operations')
    sub.add_argument('--if', nargs=4, action='append', dest='conditions', metavar=('KEY', 'FIELD', 'OP', 'OPERAND'),
                     help='FIELD: version, create, mod, value or lease; OP: =, !=, < or >; all must hold')  # fmt: skip
    for flag, dest, text in (('--then', 'then', 'if so'), ('--else', 'otherwise', 'if not')):
        sub.add_argument(
            flag, nargs='+', action='append', dest=dest, metavar='WORD',
            help=f'what to do {text}, in order: put KEY VALUE, del KEY or get KEY; may be given more than once',
        )  # fmt: skip
    sub = verb('lease', lease, 'grant, keep alive, revoke or show leases')
    sub.add_argument('action', choices=('grant', 'keepalive', 'revoke', 'ttl', 'list'), help='what to do')
    sub.add_argument('number', nargs='?', type=_whole, default=0, help='TTL in seconds for grant, else the lease id')
    cluster.add_verbs(verb)
    cluster.add_snapshots(verbs, common)
    sub = verb('compact', compact, 'forget revisions below REVISION')
    sub.add_argument('revision', type=_whole, metavar='REVISION', help='the oldest one that can be read afterwards')
    return parser


def _whole(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r}: wants a whole number') from None
    if not 0 <= number < 1 << 63:
        raise argparse.ArgumentTypeError(f'{text!r}: wants a number from 0 to 2^63-1')
    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f'{text!r}: wants seconds, more than 0')
    return seconds


def _endpoints(text: str) -> list[tuple[str, int]]:
    try:
        found = [split_address(part) for part in text.split(',')]
    except ValueError:
        found = []
    if not found or not all(host and 0 < port < 65536 for host, port in found):
        raise argparse.ArgumentTypeError(f'{text!r}: wants HOST:PORT,HOST:PORT')
    return found


def _tls(args: argparse.Namespace) -> ClientTls:
    """Raises BadCertificate, UsageError."""
    given = args.tls_cert, args.tls_key, args.tls_ca
    if not any(given):
        return None
    if not all(given):
        raise UsageError('--tls-cert, --tls-key and --tls-ca go together')
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
    args = _parser().parse_args(['--help', *argv[1:]] if argv[0] == 'help' else argv)
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
