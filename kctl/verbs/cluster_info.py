"""`kctl cluster-info`: where the API server is."""

from __future__ import annotations

import click

from kctl.verbs.lib.session import Session, Verb, say, with_session


@click.command('cluster-info', cls=Verb)
@with_session
def command(session: Session) -> None:
    """Show the addresses of the control plane and of services labelled kubernetes.io/cluster-service=true."""
    server = session.config.servers[0]
    path = '/api/v1/namespaces/kube-system/services'
    found = session.http.get(path, {'labelSelector': 'kubernetes.io/cluster-service=true'})
    say(f'Kubernetes control plane is running at {server}')
    for service in found.get('items') or ():
        name = service['metadata']['name']
        label = (service['metadata'].get('labels') or {}).get('kubernetes.io/name') or name
        say(f'{label} is running at {server}{path}/{name}/proxy')
    say("\nTo further debug and diagnose cluster problems, use 'kubectl cluster-info dump'.")
