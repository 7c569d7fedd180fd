"""`kctl label` and `kctl annotate`: `key=value` sets, `key-` removes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import click

from kctl.verbs.lib.errors import CliError, Refused
from kctl.verbs.lib.session import Session, Verb, say, warn, with_session
from kctl.verbs.lib.targets import Target, expand, parse

Field = Literal['labels', 'annotations']
Obj = dict[str, Any]

MERGE = {'Content-Type': 'application/merge-patch+json'}


def _options(command: Callable[..., int]) -> Callable[..., int]:
    for option in (
        click.option('--overwrite', is_flag=True, help='Replace values that are there already.'),
        click.option('--all', 'all_', is_flag=True),
        click.option('-A', '--all-namespaces', is_flag=True),
        click.option('-l', '--selector', default=''),
        click.option('--list', 'list_', is_flag=True, help='Print what there is.'),
        click.argument('args', nargs=-1),
    ):
        command = option(command)
    return command


@click.command('label', cls=Verb)
@with_session
@_options
def command(session: Session, **options: Any) -> int:
    """Set labels: `label pod x app=web tier-`."""
    return _change(session, options, 'labels')


@click.command('annotate', cls=Verb)
@with_session
@_options
def annotate(session: Session, **options: Any) -> int:
    """Set annotations: `annotate pod x note=hello old-`."""
    return _change(session, options, 'annotations')


def _change(session: Session, options: dict[str, Any], field: Field) -> int:
    objects, changes = _split(options['args'])
    if not changes and not options['list_']:
        raise CliError(f'at least one {field[:-1]} update is required')
    targets = parse(session, objects)
    if any(t.name is None for t in targets) and not (options['all_'] or options['selector']):
        raise CliError('one or more resources must be specified as <resource> <name> or <resource>/<name>')
    found = expand(session, targets, labels=options['selector'], all_namespaces=options['all_namespaces'])
    code = 0
    for target, obj in found:
        present = obj['metadata'].get(field) or {}
        if options['list_']:
            for key, value in sorted(present.items()):
                say(f'{key}={value}')
            continue
        try:
            _write(session, target, obj, changes, field, overwrite=options['overwrite'])
        except Refused as e:
            warn(e.text())
            code = 1
        except CliError as e:
            warn(str(e) if len(found) > 1 else f'error: {e}')
            code = 1
    return code


def _split(args: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
    """(what objects, changes); None removes a key. Raises CliError."""
    objects: list[str] = []
    changes: dict[str, str | None] = {}
    for arg in args:
        key, equals, value = arg.partition('=')
        if equals:
            change: tuple[str, str | None] = (key, value)
        elif arg.endswith('-') and objects:
            change = (arg[:-1], None)
        else:
            if changes:
                raise CliError(f'all resources must be specified before the changes: {arg}')
            objects.append(arg)
            continue
        if change[0] in changes:
            raise CliError(f'can not both modify and remove the same key: {change[0]}')
        changes[change[0]] = change[1]
    return objects, changes


def _write(
    session: Session, target: Target, obj: Obj, changes: dict[str, str | None], field: Field, *, overwrite: bool
) -> None:
    present = obj['metadata'].get(field) or {}
    taken = [k for k, v in changes.items() if v is not None and k in present and present[k] != v]
    if taken and not overwrite:
        key = taken[0]
        raise CliError(f"'{key}' already has a value ({present[key]}), and --overwrite is false")
    for key in (k for k, v in changes.items() if v is None and k not in present):
        say(f'{field[:-1]} "{key}" not found.')
    needed = {k: v for k, v in changes.items() if present.get(k) != v}
    verb = 'labeled' if field == 'labels' else 'annotated'
    if not needed and field == 'labels':
        say(f'{target.label} not labeled')
        return
    if field == 'labels' and all(v is None for v in needed.values()):
        verb = 'unlabeled'
    if needed:
        manager = 'kctl-label' if field == 'labels' else 'kctl-annotate'
        session.http.call('PATCH', target.path, {'fieldManager': manager}, {'metadata': {field: needed}}, MERGE)
    say(f'{target.label} {verb}')
