"""`kctl apply -f`: make the objects be as the manifests say, by server-side apply.

Plain `apply` takes over fields from other managers, as kubectl's client-side apply overwrites them; with
`--server-side` a conflict is an error unless `--force-conflicts` is given, as with kubectl.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from kctl.verbs.lib import manifests
from kctl.verbs.lib.errors import CliError, Refused
from kctl.verbs.lib.manifests import Manifest
from kctl.verbs.lib.session import Session, say, warn, with_session

if TYPE_CHECKING:
    from kctl.verbs.lib.discovery import Known

Obj = dict[str, Any]

MANAGER = 'kctl'
APPLY = {'Content-Type': 'application/apply-patch+yaml'}


@click.command('apply')
@with_session
@manifests.FILES
@manifests.RECURSIVE
@click.option('--server-side', is_flag=True, help='Do not take over fields that others manage.')
@click.option('--force-conflicts', is_flag=True, help='With --server-side: take them over all the same.')
@click.option('--field-manager', default=MANAGER, show_default=True)
@click.option('--dry-run', default='none', type=click.Choice(['none', 'server', 'client']))
@click.option('-o', '--output', default='', help='name, yaml, json, jsonpath=…')
def command(session: Session, **options: Any) -> int:
    """Apply manifests from files, directories or standard input."""
    if not options['files']:
        raise CliError('must specify one of -f and -k')
    code = 0
    for manifest in manifests.read(options['files'], recursive=options['recursive']):
        try:
            known, obj = manifests.resolve(session, manifest)
            if not manifest.name:
                raise CliError(f'{manifest.source}: metadata.name: a name is required to apply')
            _apply(session, known, obj, manifest, options)
        except Refused as e:
            warn(manifests.while_('applying', manifest, e).text())
            code = 1
        except CliError as e:
            warn(f'error: {e}')
            code = 1
    return code


def _apply(session: Session, known: Known, obj: Obj, manifest: Manifest, options: dict[str, Any]) -> None:
    meta = obj['metadata']
    path = known.resource.path(meta.get('namespace'), meta['name'])
    before = _existing(session, path)
    label = f'{known.label}/{meta["name"]}'
    if options['dry_run'] == 'client':
        say(f'{label} {"configured" if before else "created"} (dry run)')
        return
    force = options['force_conflicts'] or not options['server_side']
    params = {
        'fieldManager': options['field_manager'],
        'fieldValidation': 'Strict',
        'force': 'true' if force else 'false',
        'dryRun': 'All' if options['dry_run'] == 'server' else None,
    }
    # The server answers an apply with the object alone; whether anything changed shows in its revision.
    after = session.http.call('PATCH', path, params, json.dumps(obj).encode(), APPLY)
    if options['output']:
        _print(after, label, options['output'])
        return
    done = 'serverside-applied' if options['server_side'] else _outcome(before, after)
    say(f'{label} {done}' + (' (server dry run)' if options['dry_run'] == 'server' else ''))


def _existing(session: Session, path: str) -> Obj | None:
    try:
        return session.http.get(path)
    except Refused as e:
        if e.code == 404:
            return None
        raise


def _outcome(before: Obj | None, after: Obj) -> str:
    if before is None:
        return 'created'
    same = before['metadata'].get('resourceVersion') == after['metadata'].get('resourceVersion')
    return 'unchanged' if same else 'configured'


def _print(obj: Obj, label: str, output: str) -> None:
    from kctl import printers  # noqa: PLC0415 — only with -o

    if output == 'name':
        say(label)
        return
    text = printers.structured(output, [printers.without_managed_fields(obj)], single=True)
    if text is None:
        raise CliError(f'unable to match a printer suitable for the output format "{output}"')
    click.echo(text, nl=False)
