"""`kctl exec POD -- COMMAND`: run a program in a container, over a WebSocket (v5.channel.k8s.io).

Each message begins with the number of its channel: 0 standard input, 1 output, 2 errors, 3 the final Status, 4 terminal
size, 255 the end of another channel. The exit code is the program's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from kcore import tasks
from kcore.meta.gvk import PODS
from kctl.verbs.lib.errors import CliError, Refused, Unreachable
from kctl.verbs.lib.session import Session, Verb, warn, with_session
from kctl.verbs.lib.targets import named

if TYPE_CHECKING:
    import aiohttp

Obj = dict[str, Any]

STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PROTOCOLS = ('v5.channel.k8s.io', 'v4.channel.k8s.io')
CHUNK = 32_768
"""Bytes of standard input in one message."""
CHUNKS_WAITING_MAX = 16
"""Messages read and not yet sent; at the limit reading waits."""


@click.command('exec', cls=Verb, context_settings={'ignore_unknown_options': False, 'allow_interspersed_args': True})
@with_session
@click.argument('args', nargs=-1)
@click.option('-c', '--container', default='')
@click.option('-i', '--stdin', is_flag=True, help='Pass standard input on.')
@click.option('-t', '--tty', is_flag=True, help='With a terminal.')
@click.option('-q', '--quiet', is_flag=True)
def command(session: Session, args: tuple[str, ...], **options: Any) -> int:
    """Run a command in a container: `exec hello-x -- ls -l`, `exec -it deploy/hello -- sh`."""
    if len(args) < 2:
        raise CliError('you must specify at least one command for the container')
    pod = _pod(session, args[0])
    names = [c['name'] for c in pod['spec']['containers']]
    container = options['container'] or names[0]
    if not options['container'] and len(names) > 1 and not options['quiet']:
        warn(f'Defaulted container "{container}" out of: {", ".join(names)}')
    meta = pod['metadata']
    params = [('command', a) for a in args[1:]] + [('container', container), ('stdout', 'true')]
    params += [(k, 'true') for k, on in (('stdin', options['stdin']), ('tty', options['tty'])) if on]
    params += [] if options['tty'] else [('stderr', 'true')]
    return asyncio.run(_run(session, PODS.path(meta['namespace'], meta['name'], 'exec'), params, options))


def _pod(session: Session, text: str) -> Obj:
    target = named(session, [text], default_kind='pods')[0]
    obj = session.http.get(target.path)
    if target.known.resource == PODS:
        return obj
    from kctl.verbs.logs import pods_of  # noqa: PLC0415 — only for TYPE/NAME

    return pods_of(session, obj, target.label)[0]


async def _run(session: Session, path: str, params: list[tuple[str, str]], options: dict[str, Any]) -> int:
    import aiohttp  # noqa: PLC0415 — half a second that no other verb should pay

    config = session.config
    headers = dict(session.http.headers)
    async with aiohttp.ClientSession(headers=headers) as web:
        try:
            connection = web.ws_connect(
                config.servers[0] + path, params=params, protocols=PROTOCOLS, ssl=config.ssl_context() or True,
                max_msg_size=0,
            )  # fmt: skip
            async with connection as ws:
                with _raw_terminal(options['tty'] and options['stdin']):
                    return await _talk(ws, options)
        except aiohttp.WSServerHandshakeError as e:
            raise Refused({'code': e.status, 'reason': '', 'message': e.message}) from None
        except aiohttp.ClientError as e:
            raise Unreachable(f'exec: {e}') from None


async def _talk(ws: aiohttp.ClientWebSocketResponse, options: dict[str, Any]) -> int:
    """Pass bytes both ways until the Status comes; returns the exit code."""
    feeder = tasks.start_detached('standard input', _feed(ws)) if options['stdin'] else None
    if options['tty'] and sys.stdin.isatty():
        size = shutil.get_terminal_size()
        await ws.send_bytes(bytes([RESIZE]) + json.dumps({'Width': size.columns, 'Height': size.lines}).encode())
    try:
        async for message in ws:
            if not isinstance(message.data, bytes) or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == STATUS:
                return _exit_code(json.loads(data))
            if channel in (STDOUT, STDERR):
                out = sys.stdout.buffer if channel == STDOUT else sys.stderr.buffer
                out.write(data)
                out.flush()
    finally:
        await tasks.stop(feeder)
    raise Unreachable('exec: the connection ended without the outcome of the command')


async def _feed(ws: aiohttp.ClientWebSocketResponse) -> None:
    """A daemon thread reads: one that waits for a key must not hold up the end of the program."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    room = threading.Semaphore(CHUNKS_WAITING_MAX)

    def read() -> None:
        data = b'-'
        while data:
            room.acquire()
            data = os.read(sys.stdin.fileno(), CHUNK)
            with contextlib.suppress(RuntimeError):  # the loop has ended: so does this thread
                loop.call_soon_threadsafe(chunks.put_nowait, data)

    threading.Thread(target=read, daemon=True).start()
    while data := await chunks.get():
        await ws.send_bytes(bytes([STDIN]) + data)
        room.release()
    if ws.protocol == PROTOCOLS[0]:
        await ws.send_bytes(bytes([CLOSE, STDIN]))


@contextlib.contextmanager
def _raw_terminal(wanted: bool) -> Iterator[None]:
    """Every key goes to the other side as it is; the terminal is put back at the end."""
    if not wanted or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _exit_code(status: Obj) -> int:
    if status.get('status') == 'Success':
        return 0
    causes = (status.get('details') or {}).get('causes') or ()
    code = next((c.get('message') for c in causes if c.get('reason') == 'ExitCode'), None)
    if code is None:
        raise CliError(str(status.get('message') or 'the command could not be run'))
    warn(f'command terminated with exit code {code}')
    return int(code)
