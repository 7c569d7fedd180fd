"""`kctl patch`: change single fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import yaml

from kcore.env import Env
from kctl.verbs.lib.errors import CliError
from kctl.verbs.lib.output import print_object
from kctl.verbs.lib.session import Session, Verb, say, with_session
from kctl.verbs.lib.targets import named

TYPES = {
    'strategic': 'application/strategic-merge-patch+json',
    'merge': 'application/merge-patch+json',
    'json': 'application/json-patch+json',
}


@click.command('patch', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
@click.option('-p', '--patch', 'text', help='The patch, as JSON or YAML.')
@click.option('--patch-file', help='File with the patch.')
@click.option('--type', 'kind', default='strategic', type=click.Choice([*TYPES]))
@click.option('--subresource', default='')
@click.option('--dry-run', default='none', type=click.Choice(['none', 'server']))
@click.option('-o', '--output', default='')
def command(session: Session, **options: Any) -> None:
    """Patch an object: `patch deploy hello -p '{"spec":{"paused":true}}'`."""
    if bool(options['text']) == bool(options['patch_file']):
        raise CliError('must specify --patch or --patch-file containing the contents of the patch')
    patch = _parse(options['text'], options['patch_file'])
    for target in named(session, options['args']):
        path = target.path + (f'/{options["subresource"]}' if options['subresource'] else '')
        before = session.http.get(path)
        params = {'fieldManager': 'kctl-patch', 'dryRun': 'All' if options['dry_run'] == 'server' else None}
        after = session.http.call(
            'PATCH', path, params, json.dumps(patch).encode(), {'Content-Type': TYPES[options['kind']]}
        )
        if options['output']:
            print_object(after, target.label, options['output'])
            continue
        same = before['metadata'].get('resourceVersion') == after['metadata'].get('resourceVersion')
        say(f'{target.label} patched' + (' (no change)' if same else ''))


def _parse(text: str | None, file: str | None) -> Any:
    try:
        raw: str | bytes = text if text is not None else Env.real().disk.read(Path(file or ''))
        patch = yaml.safe_load(raw)
    except OSError as e:
        raise CliError(f'{file}: {e.strerror or e}') from None
    except yaml.YAMLError as e:
        raise CliError(f'unable to parse the patch: {" ".join(str(e).split())}') from None
    if not isinstance(patch, dict | list):
        raise CliError('unable to parse the patch: an object or a list is expected')
    return patch
