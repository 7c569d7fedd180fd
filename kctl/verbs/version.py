"""`kctl version`: of this program, and of the server."""

from __future__ import annotations

import platform

import click

from kctl.verbs.lib.errors import CliError
from kctl.verbs.lib.session import VERSION, Session, Verb, say, with_session


@click.command('version', cls=Verb)
@with_session
@click.option('--client', is_flag=True, help='Do not ask the server.')
@click.option('-o', '--output', default='', help='yaml or json.')
def command(session: Session, client: bool, output: str) -> None:
    """Print the client's and the server's version."""
    if output not in ('', 'yaml', 'json'):
        raise CliError("--output must be 'yaml' or 'json'")
    ours = {'gitVersion': f'v{VERSION}', 'pythonVersion': platform.python_version(), 'platform': platform.platform()}
    theirs = None if client else session.http.get('/version')
    if output:
        from kctl import printers  # noqa: PLC0415 — the plain form must not load YAML

        both = {'clientVersion': ours} | ({'serverVersion': theirs} if theirs else {})
        click.echo(printers.to_yaml(both) if output == 'yaml' else printers.to_json(both), nl=False)
        return
    say(f'Client Version: v{VERSION}')
    if theirs:
        say(f'Server Version: {theirs.get("gitVersion")}')
