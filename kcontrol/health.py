"""The manager's own HTTP port: /healthz (whole and by controller), /metrics, /debug/queues.

A controller is healthy when nothing that it works on has been in work for too long, and when it does not work at all
because another process leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from kcore.config import split_address
from kcore.env import Env
from kcore.metrics import CONTENT_TYPE, render
from kcore.tasks import start_essential

if TYPE_CHECKING:
    from kcontrol.manager import Manager


def _health(stuck: Mapping[str, bool], *, verbose: bool) -> web.Response:
    """Upstream's form: `ok`, or a line for each part."""
    bad = any(stuck.values())
    if not bad and not verbose:
        return web.Response(text='ok')
    lines = [f'[-]{name} failed: in work for too long' if is_ else f'[+]{name} ok' for name, is_ in stuck.items()]
    last = 'healthz check failed' if bad else 'healthz check passed'
    return web.Response(status=500 if bad else 200, text='\n'.join([*lines, last, '']))


async def serve_health(group: asyncio.TaskGroup, address: str, env: Env, manager: Manager) -> tuple[str, int]:
    """Listen and serve in `group`. Returns the bound address. Raises OSError when the port is taken."""

    async def healthz(request: web.Request) -> web.Response:
        return _health(manager.stuck(), verbose='verbose' in request.query)

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text='ok')

    async def healthz_of(request: web.Request) -> web.Response:
        stuck, name = manager.stuck(), request.match_info['name']
        if name not in stuck:
            return web.Response(status=404, text=f'{name}: no such controller runs here\n')
        return _health({name: stuck[name]}, verbose=False)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=render(manager.metrics.registry), headers={'Content-Type': CONTENT_TYPE})

    async def queues(_: web.Request) -> web.Response:
        body = {
            'leading': {name: elector.leading for name, elector in manager.electors.items()},
            'queues': manager.runner.debug() if manager.runner is not None else {},
        }
        return web.Response(body=orjson.dumps(body, option=orjson.OPT_INDENT_2), content_type='application/json')

    app = web.Application()
    app.router.add_get('/healthz', healthz)
    app.router.add_get('/healthz/{name}', healthz_of)
    app.router.add_get('/livez', livez)
    app.router.add_get('/readyz', healthz)
    app.router.add_get('/metrics', metrics)
    app.router.add_get('/debug/queues', queues)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    if runner.server is None:
        raise AssertionError('a runner that is set up has a server')
    host, port = split_address(address)
    server = await env.net.listen(runner.server, host, port)

    async def hold() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            await runner.cleanup()

    start_essential(group, 'health', hold())
    return server.address
