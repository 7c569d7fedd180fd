"""`kctl cluster up | down | status | server | kill | rotate`: a cluster of processes on this machine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from kcore import log
from kcore.env import Env
from kcore.tasks import causes
from kctl.local import cluster
from kctl.local.layout import ClusterError, Layout

DATA_DIR = click.option(
    '--data-dir',
    type=click.Path(file_okay=False, path_type=Path),
    default=Path('.kubeling'),
    show_default=True,
    help='Where the cluster keeps its data, certificates and logs.',
)


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """A ClusterError is one sentence on standard error and exit code 1."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        log.setup('kctl', level='warning')
        try:
            command(*args, **kwargs)
        except (ClusterError, ExceptionGroup) as e:
            first = causes(e)[0]
            if not isinstance(first, ClusterError):
                raise
            print(f'kubeling: {first}', file=sys.stderr)
            raise SystemExit(1) from None

    return guarded


@click.group('cluster')
def command() -> None:
    """Start, stop and inspect a cluster of processes on this machine."""


@command.command()
@DATA_DIR
@click.option('--stores', type=int, help='Store members (odd; 3 unless the data directory says otherwise).')
@click.option('--nodes', type=int, help='Node agents (2).')
@click.option('--port-base', type=int, help='First port; the API server listens on PORT_BASE+3 (6440).')
@click.option('--example', help='Run examples/NAME.yaml and wait until it is Available.')
@one_line_errors
def up(data_dir: Path, stores: int | None, nodes: int | None, port_base: int | None, example: str | None) -> None:
    """Start the cluster and wait until it serves; does nothing when it already runs."""
    from kctl.local import up as starting  # noqa: PLC0415 — `kctl version` must not pay for it
    from kctl.local.progress import Progress  # noqa: PLC0415

    env = Env.real()
    progress = Progress(env)
    layout = cluster.shape(data_dir.resolve(), env, stores=stores, nodes=nodes, port_base=port_base)
    sentence = starting.already(layout, env)
    if sentence:
        progress.say(sentence)
        return
    components = cluster.prepare(layout, env)
    reports = cluster.daemonize(layout, components, env)
    try:
        asyncio.run(starting.up(layout, reports, env, progress))
    except* ClusterError:
        cluster.down(layout, env, progress.say)
        raise
    if example:
        asyncio.run(starting.run_example(example, layout, env, progress))
    progress.say(f'The cluster is up after {progress.elapsed_s:.1f} s. Try:')
    progress.say(starting.what_to_try(layout, _shown(data_dir)))


@command.command()
@DATA_DIR
@one_line_errors
def down(data_dir: Path) -> None:
    """Stop every process of the cluster, pods included; the data stay."""
    env = Env.real()
    layout = Layout.load(data_dir.resolve(), env)
    if layout is None:
        raise ClusterError(f'there is no cluster in {data_dir}; name its directory with --data-dir.')
    if not cluster.down(layout, env, lambda text: print(text, file=sys.stderr)):
        print(f'No cluster runs in {data_dir}.', file=sys.stderr)


@command.command()
@click.argument('machine', type=click.IntRange(1, 3))
@DATA_DIR
@click.option('--port-base', type=int, help='First port (6440).')
@one_line_errors
def server(machine: int, data_dir: Path, port_base: int | None) -> None:
    """Run machine 1, 2 or 3 of a three-machine cluster in this terminal: store, API server, controllers, node."""
    env = Env.real()
    layout = cluster.shape(data_dir.resolve(), env, stores=3, nodes=None, port_base=port_base, machines=3)
    components = cluster.prepare(layout, env, machine)
    began = env.clock.monotonic()

    def report(what: str, component: str, detail: str) -> None:
        print(f'{env.clock.monotonic() - began:7.1f} s  {component} {what} {detail}'.rstrip(), flush=True)

    config = _shown(data_dir) / 'kubeconfig'
    context = 'kubeling' if machine == 1 else f'kubeling-{machine}'
    print(f'Machine {machine} of 3. The cluster serves as soon as two of them run; Ctrl-C stops this one.')
    print(f'  kubectl --kubeconfig {config} --context {context} get nodes\n', flush=True)
    cluster.supervise(layout, components, f'server-{machine}', env, report)


@command.command()
@DATA_DIR
@one_line_errors
def status(data_dir: Path) -> None:
    """Show every component, who leads, and where to look."""
    from kctl.local.status import show  # noqa: PLC0415

    env = Env.real()
    layout = Layout.load(data_dir.resolve(), env)
    if layout is None:
        raise ClusterError(f'there is no cluster in {data_dir}; start one with `kctl cluster up`.')
    asyncio.run(show(layout, env))


@command.command()
@DATA_DIR
@click.option('--authorities', is_flag=True, help='Exchange the authorities too; the old ones stay believed.')
@click.option('--forget-old', is_flag=True, help='Stop to believe earlier authorities and token keys.')
@one_line_errors
def rotate(data_dir: Path, *, authorities: bool, forget_old: bool) -> None:
    """Give every component new keys and certificates; a running cluster takes them over without a restart."""
    from kctl.local.rotation import rotate as change  # noqa: PLC0415

    layout = Layout.load(data_dir.resolve(), Env.real())
    if layout is None:
        raise ClusterError(f'there is no cluster in {data_dir}.')
    for line in change(layout, Env.real(), authorities=authorities, forget_old=forget_old):
        print(line)


@command.command()
@click.argument('who')
@DATA_DIR
@click.option('--signal', 'name', default='KILL', show_default=True, help='KILL, TERM, STOP, CONT …')
@one_line_errors
def kill(who: str, data_dir: Path, name: str) -> None:
    """Send a signal to a component: store-2, node-1 …, or to store-leader, manager-leader, scheduler-leader."""
    from kctl.local.status import kill_component  # noqa: PLC0415

    env = Env.real()
    layout = Layout.load(data_dir.resolve(), env)
    if layout is None:
        raise ClusterError(f'there is no cluster in {data_dir}.')
    print(asyncio.run(kill_component(layout, who, name, env)))


@command.command('replace')
@click.argument('who')
@DATA_DIR
@one_line_errors
def replace_(who: str, data_dir: Path) -> None:
    """Put a new, empty member in the place of a store member whose data are damaged: store-2, say."""
    from kctl.local.progress import Progress  # noqa: PLC0415 — `kctl version` must not pay for it
    from kctl.local.repair import replace_member  # noqa: PLC0415

    env = Env.real()
    layout = Layout.load(data_dir.resolve(), env)
    if layout is None:
        raise ClusterError(f'there is no cluster in {data_dir}.')
    print(asyncio.run(replace_member(layout, who, env, Progress(env))))


def _shown(data_dir: Path) -> Path:
    """The directory as the person would type it."""
    resolved = data_dir.resolve()
    here = Path(os.getcwd())
    return Path('$PWD') / resolved.relative_to(here) if resolved.is_relative_to(here) else resolved
