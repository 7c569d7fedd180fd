"""`kctl logs`: of a pod, of a workload's pods, of all pods that a selector matches."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

import click

from kcore.meta import selectors
from kcore.meta.gvk import PODS
from kctl.verbs.lib.durations import seconds
from kctl.verbs.lib.errors import CliError, Refused, Unreachable
from kctl.verbs.lib.session import Session, Verb, warn, with_session
from kctl.verbs.lib.targets import named

Obj = dict[str, Any]

STREAMS_MAX = 5
"""Logs followed at once unless --max-log-requests says otherwise; more is an error."""
SELECTED_TAIL = 10
"""Lines of each pod when they are chosen by a selector."""


@click.command('logs', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
@click.option('-f', '--follow', is_flag=True)
@click.option('-c', '--container', default='')
@click.option('--all-containers', is_flag=True)
@click.option('--tail', type=int, default=-1, help='Only this many last lines; -1: all.')
@click.option('--since', default='', help='Only newer than this, such as 5m.')
@click.option('--since-time', default='', help='Only after this time (RFC 3339).')
@click.option('-p', '--previous', is_flag=True, help='Of the previous instance of the container.')
@click.option('--timestamps', is_flag=True)
@click.option('--limit-bytes', type=int)
@click.option('--prefix', is_flag=True, help='Say in front of each line where it is from.')
@click.option('-l', '--selector', default='')
@click.option('--max-log-requests', type=int, default=STREAMS_MAX, show_default=True)
@click.option('--ignore-errors', is_flag=True)
def command(session: Session, **options: Any) -> int:
    """Print logs: `logs x`, `logs -f deploy/hello`, `logs -l app=hello --tail=20`."""
    pods = _pods(session, options)
    sources = [(pod, container) for pod in pods for container in _containers(pod, options, len(pods))]
    if options['follow'] and len(sources) > options['max_log_requests']:
        raise CliError(
            f'you are attempting to follow {len(sources)} log streams, but maximum allowed concurrency is '
            f'{options["max_log_requests"]}, use --max-log-requests to increase the limit'
        )
    if options['follow'] and len(sources) > 1:
        return _follow_all(session, sources, options)
    for pod, container in sources:
        _copy(session, pod, container, options, end=b'\n' if len(sources) > 1 else b'')
    return 0


def _pods(session: Session, options: dict[str, Any]) -> list[Obj]:
    """The pods meant. Raises CliError, Refused."""
    args: Sequence[str] = options['args']
    if options['selector']:
        if args:
            raise CliError('only a selector (-l) or a POD name is allowed')
        if options['tail'] < 0:
            options['tail'] = SELECTED_TAIL
        pods = session.items(session.catalog.find('pods'), labels=options['selector'])
        if not pods:
            warn(f'No resources found in {session.namespace} namespace.')
        return pods
    if not args:
        raise CliError('expected POD or TYPE/NAME as argument')
    if len(args) == 2 and '/' not in args[0]:
        options['container'], args = args[1], args[:1]
    if '/' not in args[0]:
        try:
            return [session.http.get(PODS.path(session.namespace, args[0]))]
        except Refused as e:
            if e.code != 404:
                raise
            raise CliError(f'error from server (NotFound): {e} in namespace "{session.namespace}"') from None
    target = named(session, args[:1])[0]
    obj = session.http.get(target.path)
    if target.known.resource == PODS:
        return [obj]
    found = pods_of(session, obj, target.label)
    if len(found) > 1:
        warn(f'Found {len(found)} pods, using pod/{found[0]["metadata"]["name"]}')
    return found[:1]


def pods_of(session: Session, obj: Obj, label: str) -> list[Obj]:
    """The pods of a workload, the most useful one first. Raises CliError when there is none."""
    found = session.items(session.catalog.find('pods'), labels=_selector(obj, label))
    if not found:
        raise CliError(f'no pods found for {label}')
    return sorted(found, key=_preference)


def _selector(obj: Obj, label: str) -> str:
    selector = (obj.get('spec') or {}).get('selector')
    if not selector:
        raise CliError(f'cannot get the logs from {label}: it does not select pods')
    if obj['kind'] in ('Service', 'ReplicationController'):
        selector = {'matchLabels': selector}
    return str(selectors.from_label_selector(selector))


def _preference(pod: Obj) -> tuple[bool, bool, str]:
    """Running ones first, and of those the one that has run longest."""
    status = pod.get('status') or {}
    ready = any(c.get('type') == 'Ready' and c.get('status') == 'True' for c in status.get('conditions') or ())
    return status.get('phase') != 'Running', not ready, status.get('startTime') or '~'


def _containers(pod: Obj, options: dict[str, Any], pods: int) -> list[str]:
    spec = pod['spec']
    names = [c['name'] for c in spec.get('containers') or ()]
    if options['container']:
        known = names + [c['name'] for kind in ('initContainers', 'ephemeralContainers') for c in spec.get(kind) or ()]
        if options['container'] not in known:
            raise CliError(f'container {options["container"]} is not valid for pod {pod["metadata"]["name"]}')
        return [options['container']]
    if options['all_containers']:
        return [c['name'] for c in spec.get('initContainers') or ()] + names
    default = (pod['metadata'].get('annotations') or {}).get('kubectl.kubernetes.io/default-container', names[0])
    if len(names) > 1 and pods == 1:
        warn(f'Defaulted container "{default}" out of: {", ".join(names)}')
    return [default]


def _copy(session: Session, pod: Obj, container: str, options: dict[str, Any], *, end: bytes = b'') -> None:
    """One log to standard output, line by line as it arrives; `end` completes an unfinished last line."""
    meta = pod['metadata']
    params = {
        'container': container,
        'follow': options['follow'],
        'previous': options['previous'],
        'timestamps': options['timestamps'],
        'tailLines': str(options['tail']) if options['tail'] >= 0 else None,
        'sinceSeconds': str(max(1, int(seconds(options['since'])))) if options['since'] else None,
        'sinceTime': options['since_time'],
        'limitBytes': options['limit_bytes'],
    }
    prefix = f'[pod/{meta["name"]}/{container}] '.encode() if options['prefix'] else b''
    out = sys.stdout.buffer
    rest = b''
    for chunk in session.http.stream(PODS.path(meta['namespace'], meta['name'], 'log'), params):
        *lines, rest = (rest + chunk).split(b'\n')
        # One write a line, so that the lines of several pods do not mix.
        for line in lines:
            out.write(prefix + line + b'\n')
        out.flush()
    if rest:
        out.write(prefix + rest + end)
        out.flush()


def _follow_all(session: Session, sources: list[tuple[Obj, str]], options: dict[str, Any]) -> int:
    """All at once, one thread each; the first error is reported when all have ended."""
    failures: list[str] = []

    def run(pod: Obj, container: str) -> None:
        try:
            _copy(session, pod, container, options, end=b'\n')
        except Refused as e:
            failures.append(e.text())
        except Unreachable as e:
            failures.append(str(e))

    session.http.close()
    threads = [threading.Thread(target=run, args=source, daemon=True) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for text in failures:
        warn(text)
    return 1 if failures and not options['ignore_errors'] else 0
