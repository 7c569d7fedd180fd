"""`kctl describe`: everything worth knowing about an object, with its events."""

from __future__ import annotations

from typing import Any

import click

from kctl.verbs.lib import manifests
from kctl.verbs.lib.describers import DESCRIBERS, GENERIC
from kctl.verbs.lib.describers.page import Page
from kctl.verbs.lib.errors import Refused
from kctl.verbs.lib.session import Session, Verb, say, warn, with_session
from kctl.verbs.lib.targets import Target, expand, parse

Obj = dict[str, Any]


@click.command('describe', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
@manifests.FILES
@manifests.RECURSIVE
@click.option('-l', '--selector', default='')
@click.option('-A', '--all-namespaces', is_flag=True)
def command(session: Session, **options: Any) -> int:
    """Show details: `describe pod x`, `describe nodes`, `describe -l app=x pods`."""
    if options['files']:
        resolved = [manifests.resolve(session, m) for m in manifests.read(options['files'])]
        targets = [Target(k, o['metadata'].get('name'), o['metadata'].get('namespace')) for k, o in resolved]
    else:
        targets = parse(session, options['args'])
    found: list[tuple[Target, Obj]] = []
    code = 0
    for target in targets:
        try:
            found += expand(session, [target], labels=options['selector'], all_namespaces=options['all_namespaces'])
        except Refused as e:
            warn(e.text())
            code = 1
    if not found and not code:
        warn(f'No resources found in {session.namespace} namespace.')
    for i, (target, obj) in enumerate(found):
        page = Page()
        DESCRIBERS.get(target.known.resource.qualified, GENERIC)(session, obj, page)
        say(('\n\n' if i else '') + page.text())
    return code
