"""`kctl cluster up`: start, wait for each part by its own sign of life, run the example, say what to try.

Nothing here sleeps: the store, the API server and the managers report on a pipe, nodes and the example through a watch.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from kclient.api import Client, Obj
from kclient.errors import AlreadyExists, Forbidden, Invalid
from kclient.kubeconfig import load
from kcore.env import Env
from kcore.meta.gvk import CONFIGMAPS, DEPLOYMENTS, NODES, SECRETS, SERVICES, Resource
from kcore.meta.objects import get_condition
from kcore.tasks import start
from kctl.local import cluster
from kctl.local.components import name_of
from kctl.local.layout import ClusterError, Layout, Role
from kctl.local.progress import Progress

START_TIMEOUT_S = 60.0
EXAMPLES = Path(__file__).resolve().parent.parent.parent / 'examples'
KINDS: dict[str, Resource] = {r.kind: r for r in (CONFIGMAPS, SECRETS, SERVICES, DEPLOYMENTS)}
"""What an example may consist of."""


class Reports:
    """The supervisor's reports, read from its pipe: which components are ready, which died."""

    def __init__(self, fd: int) -> None:
        self._ready: set[str] = set()
        self._trouble: dict[str, str] = {}
        self._ended = False
        self._changed = asyncio.Condition()
        self._fd = fd
        self._rest = b''

    async def read(self) -> None:
        """Until the supervisor ends (which, while `up` waits, is a failure)."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._fd, 'rb'))
        while line := await reader.readline():
            what, name, *detail = line.decode().strip().split(' ', 2)
            async with self._changed:
                if what == 'ready':
                    self._ready.add(name)
                    self._trouble.pop(name, None)
                elif what == 'died':
                    self._trouble[name] = ''.join(detail)
                self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def until_ready(self, names: set[str], need: int) -> None:
        """Until `need` of `names` are ready. Raises ClusterError when the supervisor has ended."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._ended or len(names & self._ready) >= need)
            if self._ended:
                raise ClusterError('the supervisor ended')

    def warnings(self) -> list[str]:
        """A line for each component that died and has not come back; the cluster works without it."""
        return [f'! {name}: {what}' for name, what in self._trouble.items()]

    def trouble(self, names: set[str]) -> str:
        """What is known: which components died of what, else which of `names` are not ready."""
        unready = dict.fromkeys(sorted(names - self._ready), 'not ready yet')
        return '; '.join(f'{n}: {what}' for n, what in (self._trouble or unready).items())


async def up(layout: Layout, reports_fd: int, env: Env, progress: Progress) -> None:
    """Raises ClusterError that says what did not come up and which log tells why."""
    reports = Reports(reports_fd)
    async with asyncio.TaskGroup() as group:
        reading = start(group, 'reports', reports.read())
        await _components(layout, reports, progress)
        names = {name_of('node', n) for n in range(1, layout.nodes + 1)}
        async with Client(load(layout.kubeconfig, env), env, user_agent='kctl') as client:
            await Watcher(client, progress).until(
                f'{layout.nodes} node{"s" * (layout.nodes != 1)} Ready',
                NODES,
                lambda nodes: names <= {n['metadata']['name'] for n in nodes if _is(n, 'Ready')},
                hint=f'see {layout.log("node-1")}',
            )
        for line in reports.warnings():
            progress.say(line)
        reading.cancel()


async def _components(layout: Layout, reports: Reports, progress: Progress) -> None:
    majority = layout.stores // 2 + 1
    parts: tuple[tuple[Role, int, int, str], ...] = (
        ('store', layout.stores, majority, f'store: {majority} of {layout.stores} members, one leads'),
        ('api', layout.apis, layout.apis, 'API server at ' + layout.api_urls()[0]),
        ('manager', layout.managers, 1, 'controller manager and scheduler'),
        # An agent is ready once its Node and pods are as they are now, not as an earlier life left them in the store.
        ('node', layout.nodes, layout.nodes, f'{layout.nodes} node agent{"s" * (layout.nodes != 1)}'),
    )
    for role, count, need, what in parts:
        names = {name_of(role, n) for n in range(1, count + 1)}
        try:
            await progress.wait(what, reports.until_ready(names, need), timeout_s=START_TIMEOUT_S)
        except (TimeoutError, ClusterError) as e:
            raise ClusterError(f'{reports.trouble(names)}; see {layout.data / "logs"}.') from e


async def run_example(name: str, layout: Layout, env: Env, progress: Progress) -> None:
    """Create what `examples/<name>.yaml` holds, unless it is there, and wait until each Deployment is Available.

    Raises ClusterError; the cluster keeps running, so that one can look why.
    """
    path = EXAMPLES / f'{name}.yaml'
    try:
        objects = list(yaml.safe_load_all(env.disk.read(path)))
    except FileNotFoundError as e:
        raise ClusterError(f'there is no example {name}: {path} does not exist.') from e
    async with Client(load(layout.kubeconfig, env), env, user_agent='kctl') as client:
        for obj in objects:
            obj['metadata'].setdefault('namespace', 'default')
            with contextlib.suppress(AlreadyExists):
                try:
                    await client.create(KINDS[obj['kind']], obj)
                except (Invalid, Forbidden) as e:
                    raise ClusterError(f'example {name} was refused: {e}') from e
        await Watcher(client, progress).until(
            f'example {name} Available',
            DEPLOYMENTS,
            partial(_all_available, _names([o for o in objects if o['kind'] == DEPLOYMENTS.kind])),
            namespace='default',
            hint='the cluster runs; see `kubectl describe pods`',
        )


def _names(objects: list[Obj]) -> set[str]:
    return {o['metadata']['name'] for o in objects}


def _all_available(names: set[str], objects: list[Obj]) -> bool:
    return names <= _names([o for o in objects if _is(o, 'Available')])


def _is(obj: Obj, condition: str) -> bool:
    found = get_condition(obj, condition)
    return found is not None and found.get('status') == 'True'


@dataclass(frozen=True, slots=True)
class Watcher:
    """Waits until the objects of a resource are as wanted: one list, then a watch."""

    client: Client
    progress: Progress

    async def until(
        self,
        what: str,
        resource: Resource,
        done: Callable[[list[Obj]], bool],
        *,
        namespace: str | None = None,
        hint: str = 'see the logs',
    ) -> None:
        """Raises ClusterError after START_TIMEOUT_S."""
        try:
            await self.progress.wait(what, self._seen(resource, namespace, done), timeout_s=START_TIMEOUT_S)
        except TimeoutError as e:
            raise ClusterError(f'waited {START_TIMEOUT_S:.0f} s in vain for {what}; {hint}.') from e

    async def _seen(self, resource: Resource, namespace: str | None, done: Callable[[list[Obj]], bool]) -> None:
        page = await self.client.list(resource, namespace)
        objects = {o['metadata']['uid']: o for o in page.items}
        version = page.resource_version
        while not done(list(objects.values())):
            async for event in self.client.watch(resource, namespace, resource_version=version):
                meta = event.object['metadata']
                version = meta['resourceVersion']
                if event.type == 'DELETED':
                    objects.pop(meta['uid'], None)
                elif event.type != 'BOOKMARK':
                    objects[meta['uid']] = event.object
                if done(list(objects.values())):
                    return


def what_to_try(layout: Layout, shown: Path) -> str:
    return f"""
  export KUBECONFIG={shown / 'kubeconfig'}
  kubectl get nodes,pods -o wide              # or .venv/bin/kctl get nodes,pods -o wide
  kubectl scale deployment hello --replicas=5
  kubectl logs -f deploy/hello
  curl http://$(kubectl get pod -l app=hello -o jsonpath='{{.items[0].status.podIP}}'):8080
  kubectl delete deployment hello
  ./scripts/down                              # stops everything; the data stay in {shown}
"""


def already(layout: Layout, env: Env) -> str | None:
    """A sentence, when the cluster of this data directory already runs."""
    process = cluster.supervisors(layout, env).get(cluster.SUPERVISOR)
    if process is None:
        return None
    return f'The cluster in {layout.data} already runs at {layout.api_urls()[0]} (process {process.pid}).'
