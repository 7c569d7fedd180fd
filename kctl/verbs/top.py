"""`kctl top`: what nodes, pods and containers use, as metrics.k8s.io says.

Source of columns and units: kubectl pkg/metricsutil/metrics_printer.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from kcore.meta import quantity
from kctl.printers import aligned
from kctl.verbs.lib.errors import CliError, Refused
from kctl.verbs.lib.session import Session, Verb, say, warn, with_session

Obj = dict[str, Any]
Use = Mapping[str, int]

METRICS = '/apis/metrics.k8s.io/v1beta1'
MIB = 1 << 20
SORTS = click.Choice(['cpu', 'memory'])


@click.group('top')
def command() -> None:
    """What is used: `top node`, `top pod --containers`."""


@command.command('node', cls=Verb)
@with_session
@click.argument('name', default='')
@click.option('-l', '--selector', default='')
@click.option('--sort-by', type=SORTS)
@click.option('--no-headers', is_flag=True)
def node(session: Session, name: str, **options: Any) -> None:
    """CPU and memory of nodes, and the share of what they can give to pods."""
    items = _ask(session, f'{METRICS}/nodes', name, options['selector'])
    nodes = session.items(session.catalog.find('nodes'), labels=options['selector'])
    allocatable = {n['metadata']['name']: (n.get('status') or {}).get('allocatable') or {} for n in nodes}
    used = _sorted([(i['metadata']['name'], _use([i['usage']])) for i in items], options['sort_by'])
    rows = [_node_row(who, use, allocatable.get(who, {})) for who, use in used]
    silent = [] if name else sorted(allocatable.keys() - {who for who, _ in used})
    rows += [[who, *['<unknown>'] * 4] for who in silent]
    header = [] if options['no_headers'] else [['NAME', 'CPU(cores)', 'CPU(%)', 'MEMORY(bytes)', 'MEMORY(%)']]
    say(aligned([*header, *rows]))


def _node_row(name: str, use: Use, allocatable: Obj) -> list[str]:
    cpu, memory = _shown(use)
    return [
        name,
        cpu,
        _share(use['cpu'], allocatable.get('cpu')),
        memory,
        _share(use['memory'], allocatable.get('memory')),
    ]


def _share(used: int, of: str | None) -> str:
    """used:  thousandths."""
    return f'{used * 100 // max(1, quantity.milli(of))}%' if of else '<unknown>'


@command.command('pod', cls=Verb)
@with_session
@click.argument('name', default='')
@click.option('-l', '--selector', default='')
@click.option('-A', '--all-namespaces', is_flag=True)
@click.option('--containers', is_flag=True, help='One line for each container.')
@click.option('--sort-by', type=SORTS)
@click.option('--sum', 'sum_', is_flag=True, help='Add the sum of all.')
@click.option('--no-headers', is_flag=True)
def pod(session: Session, name: str, **options: Any) -> None:
    """CPU and memory of pods."""
    wide, parts = options['all_namespaces'], options['containers']
    where = '' if wide else f'/namespaces/{session.namespace}'
    items = _ask(session, f'{METRICS}{where}/pods', name, options['selector'])
    if not items:
        warn('No resources found' if wide else f'No resources found in {session.namespace} namespace.')
        return
    used = _sorted([(i, _use(c['usage'] for c in i['containers'])) for i in items], options['sort_by'])
    rows = [row for item, use in used for row in _pod_rows(item, use, split=parts)]
    if options['sum_']:
        total = {k: sum(use[k] for _, use in used) for k in ('cpu', 'memory')}
        blank = [''] * (parts + 1)
        rows += [['', *blank, '________', '________'], ['', *blank, *_shown(total)]]
    header = ['NAMESPACE', *(['POD', 'NAME'] if parts else ['NAME']), 'CPU(cores)', 'MEMORY(bytes)']
    shown = rows if options['no_headers'] else [header, *rows]
    say(aligned(shown if wide else [row[1:] for row in shown]))


def _pod_rows(item: Obj, use: Use, *, split: bool) -> list[list[str]]:
    who = [item['metadata'].get('namespace', ''), item['metadata']['name']]
    if not split:
        return [[*who, *_shown(use)]]
    return [[*who, c['name'], *_shown(_use([c['usage']]))] for c in item['containers']]


def _ask(session: Session, path: str, name: str, selector: str) -> list[Obj]:
    """Raises CliError, Refused."""
    if name and selector:
        raise CliError('only one of NAME or selector (-l) can be provided')
    try:
        if name:
            return [session.http.get(f'{path}/{name}')]
        found: list[Obj] = session.http.get(path, {'labelSelector': selector}).get('items') or []
    except Refused as e:
        if e.code == 404 and not name:
            raise CliError('Metrics API not available') from None
        raise
    return found


def _use(usages: Iterable[Obj]) -> Use:
    """Thousandths of cores and of bytes."""
    listed = list(usages)
    return {k: sum(quantity.milli(u.get(k) or 0) for u in listed) for k in ('cpu', 'memory')}


def _shown(use: Use) -> list[str]:
    return [f'{use["cpu"]}m', f'{use["memory"] // 1000 // MIB}Mi']


def _sorted(used: list[tuple[Any, Use]], by: str | None) -> list[tuple[Any, Use]]:
    """The greediest first; without a wish, as the server gave them."""
    return sorted(used, key=lambda u: -u[1][by]) if by else used
