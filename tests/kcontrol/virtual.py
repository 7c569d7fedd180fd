"""A control plane in virtual time: the real API server, real controllers and pretended nodes on one simulated host.

Requests are HTTP over the simulated network, so hours pass in the time that the requests take. Clients are let in by a
token, since the simulated network encrypts nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler

from kapi.config import ApiConfig
from kapi.server import bootstrap
from kapi.server.service import ApiServer
from kapi.storage.urls import open_storage
from kclient.api import Client
from kclient.discovery import discover
from kclient.kubeconfig import ClientConfig
from kcontrol.config import ControlConfig
from kcontrol.controllers import CONTROLLERS
from kcontrol.runner import Runner, served_only
from kcore import tasks
from kcore.env import Env
from kcore.meta.gvk import LEASES, NODES
from kcore.meta.times import format_micro, format_time
from kcore.sim import World
from tests.kcontrol.conftest import Agent

ADDRESS = ('127.0.0.1', 6443)
TOKEN = 'virtual'
BEAT_S = 10.0
CHECK_S = 1.0
"""How often `until` looks."""


class SimConnector(aiohttp.BaseConnector):
    """aiohttp's connections over `Env.net`."""

    def __init__(self, env: Env) -> None:
        super().__init__(limit=0, keepalive_timeout=1e9)  # else it looks for idle ones every 15 s of virtual time
        self._net = env.net
        self._protocol = lambda: ResponseHandler(loop=asyncio.get_running_loop())

    async def _create_connection(self, req, traces, timeout):
        try:
            _, protocol = await self._net.connect(self._protocol, req.url.host, req.url.port)
        except OSError as e:
            raise aiohttp.ClientConnectorError(req.connection_key, e) from e
        return protocol


class Plane:
    """What a scenario works with."""

    group: asyncio.TaskGroup

    def __init__(self, world: World) -> None:
        self.world, self.env = world, world.host(ADDRESS[0]).env
        self._clients: list[Client] = []
        self._elsewhere: list[asyncio.Task] = []
        self.written: list[tuple[str, str, str]] = []
        """(user agent, method, path) of every write that the API server accepted, in order."""
        self.refused: list[tuple[str, int, str]] = []
        """(user agent, status, path) of every write that it refused."""
        self.on_write: Callable[[str, str], None] = lambda agent, path: None
        """Called with (user agent, path) after each of them."""
        self.admin = self.client('admin')

    def client(self, name: str, host: str = ADDRESS[0]) -> Client:
        config = ClientConfig((f'http://{ADDRESS[0]}:{ADDRESS[1]}',), ca_data=b'CA', token=TOKEN)
        self._clients.append(Client(config, self.world.host(host).env, user_agent=name))
        return self._clients[-1]

    async def handle(self, server: ApiServer, request: web.BaseRequest) -> web.StreamResponse:
        answer = await server.handle(request)
        if request.method != 'GET' and answer.status < 300:
            agent = request.headers['User-Agent']
            self.written.append((agent, request.method, request.path))
            self.on_write(agent, request.path)
        elif request.method != 'GET':
            self.refused.append((request.headers['User-Agent'], answer.status, request.path))
        return answer

    async def controllers(self, *names: str, **changes) -> Runner:
        client = self.client('manager')
        chosen = [declared for declared in CONTROLLERS if not names or declared.name in names]
        config = ControlConfig(kubeconfig=Path('/unused'), identity='virtual', **changes)
        runner = Runner(client, self.env, config, served_only(chosen, await discover(client)))
        self.start(runner.run())
        return runner

    def start(self, coro) -> asyncio.Task:
        return self.group.create_task(coro)

    def start_on(self, host: str, coro) -> asyncio.Task:
        """On another machine, which can be paused and cut off."""
        self._elsewhere.append(self.world.host(host).start(coro))
        return self._elsewhere[-1]

    def now_s(self) -> float:
        return self.env.clock.monotonic()

    async def until(self, condition: Callable[[], Awaitable[object]], within_s: float = 3600.0):
        """Looks once a (virtual) second. Returns what was awaited for."""
        async with asyncio.timeout(within_s):
            while not (held := await condition()):
                await asyncio.sleep(CHECK_S)
            return held

    async def stop_elsewhere(self) -> None:
        for host in self.world.hosts.values():
            host.resume()
        await tasks.stop(*self._elsewhere)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


def _server_config(pki: Path, env: Env) -> ApiConfig:
    env.disk.mkdir(pki)
    env.disk.replace(pki / 'ca.crt', (pki / 'ca.crt').read_bytes())
    env.disk.replace(pki / 'tokens', f'{TOKEN},admin,1,"system:masters"\n'.encode())
    return ApiConfig(
        listen='127.0.0.1:6443', tls_cert=pki / 'api.crt', tls_key=pki / 'api.key', client_ca=pki / 'ca.crt',
        token_auth_file=pki / 'tokens',
    )  # fmt: skip


@asynccontextmanager
async def _plane(world: World, pki: Path):
    env = world.host(ADDRESS[0]).env
    server = ApiServer(_server_config(pki, env), env, open_storage('memory://', env))
    await server.cache.start()
    plane = Plane(world)
    try:
        async with asyncio.TaskGroup() as group:
            plane.group = group
            tasks.start_essential(group, 'watch cache', server.cache.run())
            await bootstrap.bootstrap(server)
            serve = web.Server(partial(plane.handle, server), access_log=None, keepalive_timeout=1e9)
            await env.net.listen(serve, *ADDRESS)
            try:
                yield plane
            finally:
                await plane.stop_elsewhere()
            raise _Over
    except* _Over:
        pass
    finally:
        await plane.close()
        await server.close()


class _Over(Exception):
    """Ends the tasks of a plane."""


def run_virtually(scenario: Callable[[Plane], Awaitable[None]], pki: Path, monkeypatch, seed: int = 1) -> None:
    """Run `scenario` to its end."""
    monkeypatch.setattr('kclient.transport.open_connector', SimConnector)
    world = World(seed)

    async def main() -> None:
        async with _plane(world, pki) as plane:
            await scenario(plane)

    world.run(main())


class Nodes(Agent):
    """Pretended node agents that beat as long as they live; a pod goes to the living node with the fewest."""

    def __init__(self, plane: Plane) -> None:
        super().__init__(plane.admin, '')
        self._plane, self.has_bindings, self.nodes = plane, True, set()

    async def run(self) -> None:
        self.pods.on_change(self._changed)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pods.run())
            group.create_task(self._loop())

    async def start(self, *names: str, zone: str = '') -> Self:
        """Nodes of one zone join, and live from now on."""
        for name in names:
            labels = {'topology.kubernetes.io/zone': zone} if zone else {}
            await self.client.create(NODES, {'metadata': {'name': name, 'labels': labels}})
            lease = {'metadata': {'name': name, 'namespace': 'kube-node-lease'}, 'spec': {'holderIdentity': name}}
            await self.client.create(LEASES, lease)
            await self.revive(name)
            self._plane.start(self._beat(name))
        if not self.pods.has_synced:
            self._plane.start(self.run())
            await self.pods.synced()
        return self

    async def revive(self, *names: str) -> None:
        for name in names:
            self.nodes.add(name)
            await self.say(name, 'True')
            await self.client.patch(LEASES, name, self._renewal(), 'kube-node-lease')
        self.poke()

    async def say(self, name: str, ready: str) -> None:
        stamp = format_time(self.client.env.clock.wall())
        condition = {'type': 'Ready', 'status': ready, 'lastHeartbeatTime': stamp, 'lastTransitionTime': stamp}
        await self.client.patch(NODES, name, {'status': {'conditions': [condition]}}, subresource='status')

    def die(self, *names: str) -> None:
        self.nodes -= {*names}

    def place(self, pod) -> str:
        held = Counter(p['spec'].get('nodeName') for p in self.pods.store.list())
        return min(sorted(self.nodes), key=lambda n: held[n])

    async def _beat(self, name: str) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            if name in self.nodes:
                await self.client.patch(LEASES, name, self._renewal(), 'kube-node-lease')

    def _renewal(self) -> dict:
        return {'spec': {'renewTime': format_micro(self.client.env.clock.wall())}}
