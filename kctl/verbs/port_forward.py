"""`kctl port-forward`: local ports that lead into a pod.

Over SPDY/3.1, as every Kubernetes speaks it: one tunnel, and two streams in it for each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from kcore.meta.gvk import PODS
from kctl.verbs.lib.errors import CliError, Refused, Unreachable
from kctl.verbs.lib.session import Session, Verb, say, warn, with_session
from kctl.verbs.lib.targets import named

if TYPE_CHECKING:
    from kctl.verbs.lib.tunnel import Tunnel

Obj = dict[str, Any]
READ_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Forward:
    """One pair of ports; local 0 is any that is free."""

    local: int
    remote: int


@click.command('port-forward', cls=Verb)
@with_session
@click.argument('target')
@click.argument('ports', nargs=-1, required=True)
@click.option('--address', default='127.0.0.1', help='Addresses to listen on, separated by commas.')
def command(session: Session, target: str, ports: tuple[str, ...], address: str) -> int:
    """Forward local ports: `port-forward hello-x 8080:80`, `port-forward deploy/hello :http`."""
    pod, service = _pod(session, target)
    forwards = [parse(text, pod, service) for text in ports]
    meta = pod['metadata']
    path = PODS.path(meta['namespace'], meta['name'], 'portforward')
    addresses = ['127.0.0.1' if a == 'localhost' else a for a in address.split(',')]
    try:
        return asyncio.run(_run(session, path, forwards, addresses))
    except KeyboardInterrupt:
        return 0


def _pod(session: Session, text: str) -> tuple[Obj, Obj | None]:
    """The pod, and the Service that was named if one was. Raises CliError, Refused."""
    from kctl.verbs.logs import pods_of  # noqa: PLC0415 — only this verb and exec need both

    target = named(session, [text], default_kind='pods')[0]
    obj = session.http.get(target.path)
    if target.known.resource == PODS:
        return obj, None
    return pods_of(session, obj, target.label)[0], obj if obj.get('kind') == 'Service' else None


def parse(text: str, pod: Obj, service: Obj | None = None) -> Forward:
    """`8080:80`, `80`, `:http`; of a Service its own ports. Raises CliError."""
    local, colon, remote = text.partition(':')
    remote = remote if colon else local
    number = _service_port(service, remote) if service else remote
    port = int(number) if number.isdecimal() else _container_port(pod, number)
    here = (local or '0') if colon else str(port)
    if not here.isdecimal() or not 0 <= int(here) <= 65535 or not 1 <= port <= 65535:
        raise CliError(f'error parsing port {text!r}')
    return Forward(int(here), port)


def _service_port(service: Obj, text: str) -> str:
    found = next((p for p in service['spec'].get('ports') or () if text in {str(p['port']), p.get('name')}), None)
    if found is None:
        raise CliError(f'Service {service["metadata"]["name"]} does not have a service port {text}')
    return str(found.get('targetPort') or found['port'])


def _container_port(pod: Obj, name: str) -> int:
    ports = [p for c in pod['spec']['containers'] for p in c.get('ports') or ()]
    found = next((p['containerPort'] for p in ports if p.get('name') == name), None)
    if found is None:
        raise CliError(f'Pod {pod["metadata"]["name"]} does not have a named port {name!r}')
    return int(found)


async def _run(session: Session, path: str, forwards: list[Forward], addresses: list[str]) -> int:
    from kctl.verbs.lib.tunnel import Tunnel  # noqa: PLC0415 — asyncio's TLS is half of this verb's start

    tunnel = await Tunnel.open(session.config, session.http.headers, path)
    servers = [await _listen(tunnel, f, a) for f in forwards for a in addresses]
    try:
        await tunnel.run()
    finally:
        for server in servers:
            server.close()
        tunnel.close()
    raise Unreachable('error: lost connection to pod')


async def _listen(tunnel: Tunnel, forward: Forward, address: str) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        say(f'Handling connection for {port}')
        await _pass(tunnel, forward.remote, reader, writer)

    try:
        server = await asyncio.start_server(serve, address, forward.local)
    except OSError as e:
        raise CliError(f'unable to listen on port {forward.local}: {e.strerror or e}') from None
    port = server.sockets[0].getsockname()[1]
    shown = f'[{address}]' if ':' in address else address
    say(f'Forwarding from {shown}:{port} -> {forward.remote}')
    return server


async def _pass(tunnel: Tunnel, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, until both sides have said everything."""
    try:
        async with tunnel.connection(port) as remote, asyncio.TaskGroup() as group:

            async def forth() -> None:
                while data := await reader.read(READ_BYTES):
                    await remote.send(data)
                await remote.end()

            sending = group.create_task(forth())
            while data := await remote.receive():
                writer.write(data)
                await writer.drain()
            sending.cancel()
        if remote.problem:
            warn(f'an error occurred forwarding to port {port}: {remote.problem}')
    except* (ConnectionError, Refused) as e:
        warn(f'a connection to port {port} was lost: {e.exceptions[0]}')
    finally:
        with contextlib.suppress(OSError):
            writer.close()
