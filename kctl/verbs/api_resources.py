"""`kctl api-resources` and `kctl api-versions`: what the server serves."""

from __future__ import annotations

from typing import Any

import click

from kctl import printers
from kctl.verbs.lib.errors import CliError
from kctl.verbs.lib.session import Session, Verb, say, with_session


@click.command('api-resources', cls=Verb)
@with_session
@click.option('-o', '--output', default='', help='wide or name.')
@click.option('--namespaced', type=bool, help='Only namespaced resources (true) or only others (false).')
@click.option('--api-group', help='Only this group.')
@click.option('--verbs', default='', help='Only resources that support all these verbs.')
@click.option('--no-headers', is_flag=True)
def command(session: Session, **options: Any) -> None:
    """Print the resources of the server."""
    output, namespaced, api_group = options['output'], options['namespaced'], options['api_group']
    if output not in ('', 'wide', 'name'):
        raise CliError(f'--output {output} is not available')
    needed = {v for v in options['verbs'].split(',') if v}
    found = [
        k
        for k in session.catalog.known
        if (namespaced is None or k.resource.namespaced == namespaced)
        and (api_group is None or k.resource.group == api_group)
        and needed <= set(k.verbs)
        and (k.verbs or not needed)
    ]
    found.sort(key=lambda k: (k.resource.group, k.resource.plural))
    if output == 'name':
        for k in found:
            say(k.resource.qualified)
        return
    rows = [
        [
            k.resource.plural,
            ','.join(k.short),
            k.resource.api_version,
            str(k.resource.namespaced).lower(),
            k.resource.kind,
        ]
        + ([','.join(sorted(k.verbs)), ','.join(k.categories)] if output == 'wide' else [])
        for k in found
    ]
    if not options['no_headers']:
        titles = ['NAME', 'SHORTNAMES', 'APIVERSION', 'NAMESPACED', 'KIND']
        rows.insert(0, titles + (['VERBS', 'CATEGORIES'] if output == 'wide' else []))
    say(printers.aligned(rows))


@click.command('api-versions', cls=Verb)
@with_session
def versions(session: Session) -> None:
    """Print the API versions of the server as group/version."""
    for version in sorted({k.resource.api_version for k in session.catalog.known}):
        say(version)
