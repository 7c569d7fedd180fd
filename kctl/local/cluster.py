"""Bring a local cluster up and down: decide its shape, check the ports, run the supervisor, wait until it serves."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from kcore.env import Env
from kctl.local import claims
from kctl.local.components import Component, Plan
from kctl.local.layout import APIS_MAX, NODES_MAX, PORT_BASE_MAX, STORES_MAX, ClusterError, Layout, join
from kctl.local.supervisor import STOP_GRACE_S, Report, Supervisor, running

SUPERVISOR = 'supervisor'
STOP_TIMEOUT_S = sum(STOP_GRACE_S.values()) + 30.0
"""A stop passes four roles, each with its grace, and the pods' own grace."""


def shape(
    data: Path, env: Env, *, stores: int | None, nodes: int | None, port_base: int | None, machines: int | None = None
) -> Layout:
    """The layout to start: what the flags say, else what ran here before, else the defaults.

    The number of members and the ports are part of the data (a store's membership, the nodes' addresses), so a
    directory keeps them; the number of nodes may change. Raises ClusterError.
    """
    before = Layout.load(data, env)
    base = before or Layout(data)
    for flag, value, low, high in (
        ('--stores', stores, 1, STORES_MAX),
        ('--nodes', nodes, 0, NODES_MAX),
        ('--port-base', port_base, 1024, PORT_BASE_MAX),
    ):
        if value is not None and not low <= value <= high:
            raise ClusterError(f'{flag} must be between {low} and {high}, not {value}.')
    for flag, value, have in (('--stores', stores, base.stores), ('--port-base', port_base, base.port_base)):
        if before is not None and value not in (None, have):
            raise ClusterError(
                f'{data} holds a cluster with {flag} {have}; to have one with {flag} {value}, name another --data-dir.'
            )
    wanted = replace(base, stores=stores or base.stores, port_base=port_base or base.port_base)
    if machines is not None:
        return replace(wanted, nodes=machines, apis=min(machines, APIS_MAX), managers=machines)
    return replace(wanted, nodes=base.nodes if nodes is None else nodes, apis=1, managers=2)


def supervisors(layout: Layout, env: Env) -> dict[str, psutil.Process]:
    """The live supervisors of a data directory by name: `supervisor`, or `server-1` … for single machines."""
    found = {}
    for file in env.disk.listdir(layout.data / 'run'):
        name = file.removesuffix('.pid')
        if name == SUPERVISOR or name.startswith('server-'):
            process = running(layout, name, env)
            if process is not None:
                found[name] = process
    return found


def check_ports(layout: Layout, components: Iterable[Component]) -> None:
    """Raises ClusterError that names the first address in use and who uses it."""
    for component in components:
        addresses = [layout.address(component.role, component.number)]
        if component.role == 'store':
            addresses.append(layout.store_http(component.number))
        for address in addresses:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(address)
                except OSError as e:
                    raise ClusterError(_port_trouble(component, address, e)) from e


def _port_trouble(component: Component, address: tuple[str, int], e: OSError) -> str:
    if e.errno != errno.EADDRINUSE:
        return f'{component.name} cannot listen on {join(address)}: {e.strerror}.'
    holder = ''
    with contextlib.suppress(psutil.Error):
        for c in psutil.net_connections('tcp'):
            if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == address[1] and c.pid:
                holder = f' by process {c.pid} ({psutil.Process(c.pid).name()})'
                break
    return f'{component.name} needs {join(address)}, which is taken{holder}; name other ports with --port-base.'


@contextlib.contextmanager
def exclusive(layout: Layout, env: Env) -> Iterator[None]:
    """One preparation at a time: three terminals may start at once."""
    env.disk.mkdir(layout.data)
    fd = os.open(layout.data / '.lock', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def prepare(layout: Layout, env: Env, machine: int | None = None) -> list[Component]:
    """Certificates, kubeconfigs and the components to run; refuses what already runs or cannot listen."""
    with exclusive(layout, env):
        active = supervisors(layout, env)
        mine = SUPERVISOR if machine is None else f'server-{machine}'
        for name, process in active.items():
            if machine is None or name in (mine, SUPERVISOR):
                raise ClusterError(f'{name} of {layout.data} already runs (process {process.pid}); stop it first.')
        plan = Plan(layout, env)
        plan.prepare()
        components = plan.components(machine)
        stop_leftovers(layout, components, env)
        claims.check(layout, env)
        check_ports(layout, components)
        layout.save(env)
    return components


def stop_leftovers(layout: Layout, components: Iterable[Component], env: Env) -> None:
    """End components that outlived a killed supervisor where the kernel does not do it (it does on Linux)."""
    left = [p for c in components if (p := running(layout, c.name, env)) is not None]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(left, timeout=max(STOP_GRACE_S.values()))[1]:
        with contextlib.suppress(psutil.Error):
            process.kill()
            process.wait()


def replan(layout: Layout, env: Env, component: Component) -> Component:
    """The component as the layout on disk has it now; unchanged where that says nothing new or cannot be read."""
    try:
        now = Layout.load(layout.data, env) or layout
    except ClusterError:
        return component
    return component if now.members == layout.members else Plan(now, env).again(component)


def supervise(layout: Layout, components: list[Component], name: str, env: Env, report: Report) -> None:
    """Run the supervisor in this process until it is told to stop."""
    from kctl.local.pods import stop_pods  # noqa: PLC0415 — pulls in the node agent

    me = psutil.Process()
    identity = f'{{"pid": {me.pid}, "created": {me.create_time()}}}'.encode()
    env.disk.replace(layout.pid_file(name), identity)
    try:
        with claims.held(layout, env):
            Supervisor(
                layout, components, env, report,
                cleanup=lambda c: stop_pods(layout, c.name, env), replan=partial(replan, layout, env),
            ).run()  # fmt: skip
    finally:
        env.disk.remove(layout.pid_file(name))


def daemonize(layout: Layout, components: list[Component], env: Env) -> int:
    """Fork the supervisor into the background. Returns a descriptor on which its reports can be read, a line each."""
    reports, feed = os.pipe2(os.O_CLOEXEC)
    if os.fork() != 0:
        os.close(feed)
        return reports
    os.setsid()
    os.close(reports)
    log = os.open(layout.log(SUPERVISOR), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(fd, target)

    def report(what: str, component: str, detail: str) -> None:
        line = f'{what} {component} {detail}'.rstrip()
        with contextlib.suppress(OSError):  # a full disk
            print(f'{env.clock.wall():%Y-%m-%dT%H:%M:%SZ} {line}', flush=True)
        with contextlib.suppress(OSError):  # nobody listens any more once `up` has returned
            os.write(feed, line.encode() + b'\n')

    code = 1
    try:
        supervise(layout, components, SUPERVISOR, env, report)
        code = 0
    except BaseException as e:
        report('died', SUPERVISOR, f'{type(e).__name__}: {e}')
        raise
    finally:
        os._exit(code)


def down(layout: Layout, env: Env, say: Callable[[str], None]) -> bool:
    """Stop everything of a data directory, pods included. False when nothing ran. Raises ClusterError."""
    active = supervisors(layout, env)
    for process in active.values():
        with contextlib.suppress(psutil.Error):
            process.terminate()
    gone, alive = psutil.wait_procs(list(active.values()), timeout=STOP_TIMEOUT_S)
    if alive:
        pids = ', '.join(str(p.pid) for p in alive)
        raise ClusterError(f'process {pids} did not stop within {STOP_TIMEOUT_S:.0f} s; see {layout.log(SUPERVISOR)}.')
    with exclusive(layout, env):
        from kctl.local.pods import stop_pods  # noqa: PLC0415 — pulls in the node agent

        stop_leftovers(layout, Plan(layout, env).components(), env)
        for file in env.disk.listdir(layout.data):
            if file.startswith('node-'):
                stop_pods(layout, file, env)
    for name in active:
        say(f'{name} stopped')
    return bool(gone)
