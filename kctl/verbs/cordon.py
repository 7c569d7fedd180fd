"""`kctl cordon` and `kctl uncordon`: whether a node takes new pods."""

from __future__ import annotations

import click

from kctl.verbs.lib.session import Session, Verb, say, with_session
from kctl.verbs.lib.targets import named

STRATEGIC = {'Content-Type': 'application/strategic-merge-patch+json'}


@click.command('cordon', cls=Verb)
@with_session
@click.argument('nodes', nargs=-1, required=True)
def cordon(session: Session, nodes: tuple[str, ...]) -> None:
    """Mark nodes as unschedulable."""
    _set(session, nodes, unschedulable=True)


@click.command('uncordon', cls=Verb)
@with_session
@click.argument('nodes', nargs=-1, required=True)
def uncordon(session: Session, nodes: tuple[str, ...]) -> None:
    """Mark nodes as schedulable."""
    _set(session, nodes, unschedulable=False)


def _set(session: Session, nodes: tuple[str, ...], *, unschedulable: bool) -> None:
    word = 'cordoned' if unschedulable else 'uncordoned'
    for name in nodes:
        target = named(session, [name], default_kind='nodes')[0]
        node = session.http.get(target.path)
        if bool((node.get('spec') or {}).get('unschedulable')) == unschedulable:
            say(f'{target.label} already {word}')
            continue
        patch = {'spec': {'unschedulable': True if unschedulable else None}}
        session.http.call('PATCH', target.path, None, patch, STRATEGIC)
        say(f'{target.label} {word}')
