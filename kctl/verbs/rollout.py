"""`kctl rollout status | history | restart | undo | pause | resume`, of Deployments above all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from kcore.env import Env
from kcore.meta import selectors
from kcore.meta.gvk import DEPLOYMENTS, REPLICASETS
from kcore.meta.objects import controller_of, get_condition
from kcore.meta.times import format_time
from kctl import printers
from kctl.verbs.lib.durations import seconds
from kctl.verbs.lib.errors import CliError
from kctl.verbs.lib.session import Session, Verb, say, with_session
from kctl.verbs.lib.targets import Target, named
from kctl.verbs.lib.watching import states

Obj = dict[str, Any]

STRATEGIC = {'Content-Type': 'application/strategic-merge-patch+json'}
JSON_PATCH = {'Content-Type': 'application/json-patch+json'}
MANAGER = {'fieldManager': 'kctl-rollout'}
REVISION = 'deployment.kubernetes.io/revision'
CAUSE = 'kubernetes.io/change-cause'
HASH = 'pod-template-hash'


@click.group('rollout')
def command() -> None:
    """Manage the rollout of a resource."""


@command.command('status', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
@click.option('-w', '--watch/--no-watch', default=True)
@click.option('--timeout', default='0s', help='0: no limit.')
def status(session: Session, args: tuple[str, ...], watch: bool, timeout: str) -> None:
    """Follow a rollout until it is complete."""
    limit = seconds(timeout) or None
    for target in named(session, args):
        session.http.get(target.path)
        said = ''
        for obj in states(session, target, limit):
            if obj is None:
                raise CliError('object has been deleted')
            text, done = progress(obj)
            if text != said:
                say(text)
                said = text
            if done or not watch:
                break
        else:
            raise CliError('timed out waiting for the condition')


def progress(obj: Obj) -> tuple[str, bool]:
    """kubectl's sentence about a rollout, and whether it is complete. Raises CliError when it has failed."""
    kind, name = obj['kind'], obj['metadata']['name']
    watcher = {'Deployment': _deployment, 'StatefulSet': _statefulset, 'DaemonSet': _daemonset}.get(kind)
    if watcher is None:
        raise CliError(f'no status viewer has been implemented for {kind}')
    seen = (obj.get('status') or {}).get('observedGeneration') or 0
    if (obj['metadata'].get('generation') or 0) > seen:
        return f'Waiting for {kind.lower()} spec update to be observed...', False
    return watcher(name, obj.get('spec') or {}, obj.get('status') or {}, obj)


def _deployment(name: str, spec: Obj, status: Obj, obj: Obj) -> tuple[str, bool]:
    progressing = get_condition(obj, 'Progressing') or {}
    if progressing.get('reason') == 'ProgressDeadlineExceeded':
        raise CliError(f'deployment "{name}" exceeded its progress deadline')
    wanted, total = spec.get('replicas', 1), status.get('replicas', 0)
    updated, available = status.get('updatedReplicas', 0), status.get('availableReplicas', 0)
    waiting = f'Waiting for deployment "{name}" rollout to finish:'
    if updated < wanted:
        return f'{waiting} {updated} out of {wanted} new replicas have been updated...', False
    if total > updated:
        return f'{waiting} {total - updated} old replicas are pending termination...', False
    if available < updated:
        return f'{waiting} {available} of {updated} updated replicas are available...', False
    return f'deployment "{name}" successfully rolled out', True


def _statefulset(name: str, spec: Obj, status: Obj, _obj: Obj) -> tuple[str, bool]:
    wanted, ready = spec.get('replicas', 1), status.get('readyReplicas', 0)
    if ready < wanted:
        return f'Waiting for {wanted - ready} pods to be ready...', False
    updated = status.get('updatedReplicas', 0)
    if status.get('updateRevision') != status.get('currentRevision') and updated < wanted:
        return f'waiting for statefulset rolling update to complete {updated} pods at revision ' \
               f'{status.get("updateRevision")}...', False  # fmt: skip
    return f'statefulset rolling update complete {status.get("currentReplicas", 0)} pods at revision ' \
           f'{status.get("currentRevision")}...', True  # fmt: skip


def _daemonset(name: str, _spec: Obj, status: Obj, _obj: Obj) -> tuple[str, bool]:
    wanted = status.get('desiredNumberScheduled', 0)
    updated, available = status.get('updatedNumberScheduled', 0), status.get('numberAvailable', 0)
    waiting = f'Waiting for daemon set "{name}" rollout to finish:'
    if updated < wanted:
        return f'{waiting} {updated} out of {wanted} new pods have been updated...', False
    if available < wanted:
        return f'{waiting} {available} of {wanted} updated pods are available...', False
    return f'daemon set "{name}" successfully rolled out', True


@command.command('restart', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
def restart(session: Session, args: tuple[str, ...]) -> None:
    """Replace all pods, as a rollout."""
    now = format_time(Env.real().clock.wall())
    template = {'metadata': {'annotations': {'kubectl.kubernetes.io/restartedAt': now}}}
    _patch_all(session, args, lambda _: {'spec': {'template': template}}, 'restarted')


@command.command('pause', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
def pause(session: Session, args: tuple[str, ...]) -> None:
    """Let changes of the template wait."""
    _patch_all(session, args, lambda _: {'spec': {'paused': True}}, 'paused')


@command.command('resume', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
def resume(session: Session, args: tuple[str, ...]) -> None:
    """Go on after a pause."""
    _patch_all(session, args, lambda _: {'spec': {'paused': None}}, 'resumed')


def _patch_all(session: Session, args: tuple[str, ...], patch: Callable[[Obj], Obj], done: str) -> None:
    for target in named(session, args):
        obj = session.http.get(target.path)
        paused = bool((obj.get('spec') or {}).get('paused'))
        if done == 'restarted' and paused:
            raise CliError(f"{target.label} can't restart paused deployment (run rollout resume first)")
        if (done, paused) in (('paused', True), ('resumed', False)):
            raise CliError(f'{target.label} is {"already paused" if paused else "not paused"}')
        session.http.call('PATCH', target.path, MANAGER, patch(obj), STRATEGIC)
        say(f'{target.label} {done}')


@command.command('history', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
@click.option('--revision', type=int, default=0, help='Show the pod template of this revision.')
def history(session: Session, args: tuple[str, ...], revision: int) -> None:
    """List the revisions of a Deployment."""
    for target in named(session, args):
        by_revision = _revisions(session, target)
        if revision:
            if revision not in by_revision:
                raise CliError('unable to find the specified revision')
            say(f'{target.label} with revision #{revision}')
            say(printers.to_yaml(by_revision[revision]['spec']['template']).rstrip())
            continue
        rows = [['REVISION', 'CHANGE-CAUSE']]
        rows += [[str(n), _cause(rs)] for n, rs in sorted(by_revision.items())]
        # kubectl prints these two columns with a padding of two.
        say(f'{target.label} \n' + '\n'.join(f'{a:<10}{b}' for a, b in rows) + '\n')


def _cause(obj: Obj) -> str:
    return (obj['metadata'].get('annotations') or {}).get(CAUSE) or '<none>'


def _revisions(session: Session, target: Target) -> dict[int, Obj]:
    """The ReplicaSets that a Deployment controls, by revision. Raises CliError for other kinds."""
    if target.known.resource != DEPLOYMENTS:
        raise CliError(f'no history viewer has been implemented for {target.known.resource.kind}')
    owner = session.http.get(target.path)
    selector = str(selectors.from_label_selector(owner['spec'].get('selector')))
    listed = session.http.get(REPLICASETS.path(target.namespace), {'labelSelector': selector}).get('items') or ()
    found: dict[int, Obj] = {}
    for rs in listed:
        ref = controller_of(rs)
        number = (rs['metadata'].get('annotations') or {}).get(REVISION, '')
        if ref is not None and ref.get('uid') == owner['metadata']['uid'] and number.isdigit():
            found[int(number)] = rs
    return found


@command.command('undo', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
@click.option('--to-revision', type=int, default=0, help='0: the one before.')
def undo(session: Session, args: tuple[str, ...], to_revision: int) -> None:
    """Go back to an earlier revision of a Deployment."""
    for target in named(session, args):
        by_revision = _revisions(session, target)
        ordered = sorted(by_revision)
        if not to_revision and len(ordered) < 2:
            raise CliError('no rollout history found for ' + target.label.replace('/', ' "') + '"')
        wanted = to_revision or ordered[-2]
        if wanted not in by_revision:
            raise CliError(f'unable to find specified revision {wanted} in history')
        template = json.loads(json.dumps(by_revision[wanted]['spec']['template']))
        (template.get('metadata', {}).get('labels') or {}).pop(HASH, None)
        present = session.http.get(target.path)['spec']['template']
        if present == template:
            say(f'{target.label} skipped rollback (current template already matches revision {wanted})')
            continue
        change = [{'op': 'replace', 'path': '/spec/template', 'value': template}]
        session.http.call('PATCH', target.path, MANAGER, json.dumps(change).encode(), JSON_PATCH)
        say(f'{target.label} rolled back')
