"""`kctl delete`: by name, by selector, by manifest; waits until the objects are gone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import click

from kcore.env import Env
from kctl.verbs.lib import manifests
from kctl.verbs.lib.durations import seconds
from kctl.verbs.lib.errors import CliError, Refused
from kctl.verbs.lib.session import Session, Verb, say, warn, with_session
from kctl.verbs.lib.targets import Target, expand, parse

Obj = dict[str, Any]

POLL_S = 0.1
"""First pause between looks whether an object is gone; it doubles up to a second."""
PROPAGATION = {'background': 'Background', 'foreground': 'Foreground', 'orphan': 'Orphan'}
IMMEDIATE = (
    'Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. '
    'The resource may continue to run on the cluster indefinitely.'
)


@click.command('delete', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
@manifests.FILES
@manifests.RECURSIVE
@click.option('-l', '--selector', default='')
@click.option('--field-selector', default='')
@click.option('--all', 'all_', is_flag=True, help='All objects of the named resources in the namespace.')
@click.option('-A', '--all-namespaces', is_flag=True)
@click.option('--grace-period', type=int, default=-1, help='Seconds; 0 only with --force.')
@click.option('--now', is_flag=True, help='Same as --grace-period=1.')
@click.option('--force', is_flag=True, help='With --grace-period=0: do not wait for the node to confirm.')
@click.option('--cascade', default='background', type=click.Choice([*PROPAGATION]))
@click.option('--wait/--no-wait', default=True, help='Wait until the objects are gone.')
@click.option('--timeout', default='0s', help='Give up waiting after this long; 0 waits for ever.')
@click.option('--ignore-not-found', is_flag=True)
@click.option('-o', '--output', default='', type=click.Choice(['', 'name']))
def command(session: Session, **options: Any) -> int:
    """Delete objects: `delete pod x`, `delete -f file`, `delete pods -l app=x`."""
    deadline = seconds(options['timeout'])
    body = _options(options)
    targets, code = _targets(session, options)
    deleted: list[tuple[Target, str]] = []
    for target in targets:
        try:
            answer = session.http.call('DELETE', target.path, None, body)
        except Refused as e:
            if e.code != 404 or not (options['ignore_not_found'] or options['all_'] or options['selector']):
                warn(e.text())
                code = 1
            continue
        say(_sentence(target, options))
        deleted.append((target, _uid(answer)))
    if not targets and not code:
        say('No resources found')
    if options['wait'] and not (options['force'] and body.get('gracePeriodSeconds') == 0):
        _await_gone(session, deleted, deadline)
    return code


def _options(options: dict[str, Any]) -> Obj:
    """DeleteOptions. Raises CliError."""
    grace = 1 if options['now'] else options['grace_period']
    if options['force'] and grace < 0:
        grace = 0
    if options['force'] and grace > 0:
        raise CliError('--force and --grace-period greater than 0 cannot be specified together')
    if grace == 0 and not options['force']:
        grace = 1  # as kubectl: zero would leave the process behind
    if options['force']:
        warn(IMMEDIATE)
    body: Obj = {'kind': 'DeleteOptions', 'apiVersion': 'v1', 'propagationPolicy': PROPAGATION[options['cascade']]}
    return body | ({'gracePeriodSeconds': grace} if grace >= 0 else {})


def _targets(session: Session, options: dict[str, Any]) -> tuple[Sequence[Target], int]:
    """What to delete, and the exit code so far."""
    if options['files']:
        found = [
            manifests.resolve(session, m) for m in manifests.read(options['files'], recursive=options['recursive'])
        ]
        return [Target(k, o['metadata'].get('name'), o['metadata'].get('namespace')) for k, o in found], 0
    given = parse(session, options['args'])
    chosen = options['selector'] or options['field_selector'] or options['all_']
    if any(t.name is None for t in given) and not chosen:
        raise CliError('resource(s) were provided, but no name was specified')
    if options['all_'] and options['selector']:
        raise CliError('cannot set --all and --selector at the same time')
    if chosen and any(t.name is not None for t in given):
        raise CliError('name cannot be provided when a selector is specified')
    if not chosen:
        return given, 0
    found_objects = expand(
        session,
        given,
        labels=options['selector'],
        fields=options['field_selector'],
        all_namespaces=options['all_namespaces'],
    )
    return [t for t, _ in found_objects], 0


def _sentence(target: Target, options: dict[str, Any]) -> str:
    if options['output'] == 'name':
        return target.label
    how = 'force deleted' if options['force'] else 'deleted'
    return f'{target.known.label} "{target.name}" {how}'


def _uid(answer: Obj) -> str:
    if answer.get('kind') == 'Status':
        return str((answer.get('details') or {}).get('uid') or '')
    return str((answer.get('metadata') or {}).get('uid') or '')


def _await_gone(session: Session, deleted: Sequence[tuple[Target, str]], deadline: float) -> None:
    clock, idle = Env.real().clock, threading.Event()
    give_up = clock.monotonic() + deadline if deadline else None
    for target, uid in deleted:
        pause = POLL_S
        while _there(session, target, uid):
            if give_up is not None and clock.monotonic() >= give_up:
                raise CliError(f'timed out waiting for the condition on {target.known.resource.plural}/{target.name}')
            idle.wait(pause)
            pause = min(1.0, pause * 2)


def _there(session: Session, target: Target, uid: str) -> bool:
    try:
        found = session.http.get(target.path)
    except Refused as e:
        if e.code == 404:
            return False
        raise
    return not uid or found['metadata'].get('uid') == uid
