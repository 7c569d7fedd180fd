"""`kctl wait --for=…`: until a condition, a field, a creation or a deletion."""

from __future__ import annotations

from typing import Any

import click

from kctl.verbs.lib import jsonpath, manifests
from kctl.verbs.lib.durations import seconds
from kctl.verbs.lib.errors import CliError, Refused
from kctl.verbs.lib.session import Session, Verb, say, warn, with_session
from kctl.verbs.lib.targets import Target, expand, parse
from kctl.verbs.lib.watching import states

Obj = dict[str, Any]

WEEK_S = 7 * 24 * 3600.0


@click.command('wait', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
@manifests.FILES
@manifests.RECURSIVE
@click.option('--for', 'what', required=True, help='delete, create, condition=NAME[=VALUE], jsonpath={PATH}[=VALUE]')
@click.option('--timeout', default='30s', help='0: look once; negative: a week.')
@click.option('-l', '--selector', default='')
@click.option('--all', 'all_', is_flag=True)
def command(session: Session, **options: Any) -> int:
    """Wait: `wait --for=condition=Available deploy/hello --timeout=60s`."""
    holds = _condition(options['what'])
    timeout = seconds(options['timeout'])
    timeout = WEEK_S if timeout < 0 else timeout
    targets = _targets(session, options)
    if not targets:
        raise CliError('no matching resources found')
    code = 0
    for target in targets:
        seen = 0
        for obj in states(session, target, timeout):
            seen += 1
            if not holds(obj):
                continue
            if seen > 1 or obj is not None:  # what was not there to begin with is not worth a word
                say(f'{target.label} condition met')
            break
        else:
            r = target.known.resource
            warn(f'error: timed out waiting for the condition on {r.plural}/{target.name}')
            code = 1
    return code


def _targets(session: Session, options: dict[str, Any]) -> list[Target]:
    if options['files']:
        found = [
            manifests.resolve(session, m) for m in manifests.read(options['files'], recursive=options['recursive'])
        ]
        return [Target(k, o['metadata'].get('name'), o['metadata'].get('namespace')) for k, o in found]
    given = parse(session, options['args'])
    if options['what'] == 'create' or (options['what'] != 'delete' and all(t.name for t in given)):
        if options['what'] != 'create':
            for target in given:
                session.http.get(target.path)  # one that is missing is an error at once
        return given
    if any(t.name is None for t in given) and not (options['selector'] or options['all_']):
        raise CliError('resource name may not be empty')
    try:
        return [t for t, _ in expand(session, given, labels=options['selector'])]
    except Refused as e:
        if options['what'] == 'delete' and e.code == 404:
            return given
        raise


def _condition(text: str) -> Any:
    """A predicate over the object (None: it does not exist). Raises CliError."""
    form, _, rest = text.partition('=')
    match form.lower():
        case 'delete':
            return lambda obj: obj is None
        case 'create':
            return lambda obj: obj is not None
        case 'condition' if rest:
            name, equals, value = rest.partition('=')
            return lambda obj: obj is not None and _has(obj, name, value if equals else 'true')
        case 'jsonpath' if rest:
            brace = rest.rfind('}')
            path, value = (rest[: brace + 1], rest[brace + 1 :]) if brace >= 0 else rest.rpartition('=')[::2]
            return lambda obj: obj is not None and _field(obj, path, value.removeprefix('='))
        case _:
            raise CliError(f'unrecognized condition: "{text}"')


def _has(obj: Obj, name: str, value: str) -> bool:
    """Old news does not count: a condition observed before the latest change of the spec is not met."""
    for condition in (obj.get('status') or {}).get('conditions') or ():
        if str(condition.get('type')).lower() == name.lower():
            seen = condition.get('observedGeneration') or (obj['status'].get('observedGeneration') or 0)
            stale = seen and seen < (obj['metadata'].get('generation') or 0)
            return not stale and str(condition.get('status')).lower() == value.lower()
    return False


def _field(obj: Obj, path: str, value: str) -> bool:
    found = jsonpath.find(path.strip('{}'), obj)
    if not value:
        return bool(found)
    return len(found) == 1 and jsonpath.render(path if '{' in path else f'{{{path}}}', obj) == value.strip('\'"')
