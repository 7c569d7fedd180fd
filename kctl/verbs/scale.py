"""`kctl scale`: the number of replicas, through the scale subresource."""

from __future__ import annotations

from typing import Any

import click

from kctl.verbs.lib import manifests
from kctl.verbs.lib.errors import CliError, Refused
from kctl.verbs.lib.session import Session, Verb, say, warn, with_session
from kctl.verbs.lib.targets import Target, expand, parse

MERGE = {'Content-Type': 'application/merge-patch+json'}


@click.command('scale', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
@manifests.FILES
@manifests.RECURSIVE
@click.option('--replicas', type=click.IntRange(min=0), required=True)
@click.option('--current-replicas', type=int, help='Only if this is the present number.')
@click.option('-l', '--selector', default='')
@click.option('--all', 'all_', is_flag=True)
def command(session: Session, **options: Any) -> int:
    """Set a new size: `scale deployment hello --replicas=3`."""
    if options['files']:
        found = [
            manifests.resolve(session, m) for m in manifests.read(options['files'], recursive=options['recursive'])
        ]
        targets = [Target(k, o['metadata'].get('name'), o['metadata'].get('namespace')) for k, o in found]
    else:
        targets = parse(session, options['args'])
    if any(t.name is None for t in targets) and not (options['selector'] or options['all_']):
        raise CliError('resource(s) were provided, but no name was specified')
    code = 0
    for target, _ in expand(session, targets, labels=options['selector']):
        try:
            _scale(session, target, options['replicas'], options['current_replicas'])
        except Refused as e:
            warn(e.text())
            code = 1
    return code


def _scale(session: Session, target: Target, replicas: int, current: int | None) -> None:
    path = f'{target.path}/scale'
    patch: dict[str, Any] = {'spec': {'replicas': replicas}}
    if current is not None:
        scale = session.http.get(path)
        present = (scale.get('spec') or {}).get('replicas', 0)
        if present != current:
            raise CliError(f'Expected replicas to be {current}, was {present}')
        patch['metadata'] = {'resourceVersion': scale['metadata']['resourceVersion']}
    session.http.call('PATCH', path, {'fieldManager': 'kctl-scale'}, patch, MERGE)
    say(f'{target.label} scaled')
