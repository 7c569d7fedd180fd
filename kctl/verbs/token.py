"""`kctl token create | list | delete`: join tokens, with which a new node introduces itself.

A token is a Secret of kube-system. Beside it the cluster describes itself in the ConfigMap kube-public/cluster-info,
open to everybody and signed with each token, so that who holds a token can tell the true cluster from a false one.
Source: kubeadm's bootstrap token phase, cluster-bootstrap/token/api.
"""

from __future__ import annotations

import base64
import secrets
import string
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from kcore.env import Env
from kcore.meta.clusterdns import NAMESPACE, SERVICE
from kcore.meta.times import format_time
from kctl.printers import aligned
from kctl.verbs.lib.durations import seconds
from kctl.verbs.lib.errors import CliError, Refused
from kctl.verbs.lib.session import Session, Verb, say, warn, with_session

if TYPE_CHECKING:
    from collections.abc import Sequence

Obj = dict[str, Any]
ALPHABET = string.ascii_lowercase + string.digits
SECRETS = '/api/v1/namespaces/kube-system/secrets'
PUBLIC = '/api/v1/namespaces/kube-public/configmaps'
RBAC = '/apis/rbac.authorization.k8s.io/v1/namespaces/kube-public'
TYPE = 'bootstrap.kubernetes.io/token'
READER = 'kubeadm:bootstrap-signer-clusterinfo'
"""The Role that opens cluster-info to everybody; kubeadm's name."""


@click.group('token')
def command() -> None:
    """Join tokens for new nodes."""


@command.command('create', cls=Verb)
@with_session
@click.option('--ttl', default='24h', show_default=True, help='How long the token is good; 0 for ever.')
@click.option('--description', default='', help='What it is for.')
@click.option('--print-join-command', 'join', is_flag=True, help='Print the whole command for the new node.')
def create(session: Session, ttl: str, description: str, *, join: bool) -> None:
    """Make a token and print it."""
    number, secret = (''.join(secrets.choice(ALPHABET) for _ in range(length)) for length in (6, 16))
    data = {
        'token-id': number, 'token-secret': secret, 'description': description,
        'usage-bootstrap-authentication': 'true', 'usage-bootstrap-signing': 'true',
    }  # fmt: skip
    if lasts_s := seconds(ttl):
        data['expiration'] = format_time(Env.real().clock.wall() + timedelta(seconds=lasts_s))
    publish(session)
    _post(session, SECRETS, {
        'apiVersion': 'v1', 'kind': 'Secret', 'type': TYPE,
        'metadata': {'name': f'bootstrap-token-{number}', 'namespace': 'kube-system'}, 'stringData': data,
    })  # fmt: skip
    token = f'{number}.{secret}'
    say(join_command(session, token) if join else token)


def join_command(session: Session, token: str) -> str:
    """It also tells the node of the cluster's name servers, where there are some."""
    found = f'kctl agent --server {",".join(session.config.servers)} --token {token}'
    services = session.http.get(
        f'/api/v1/namespaces/{NAMESPACE}/services', {'fieldSelector': f'metadata.name={SERVICE}'}
    )
    return ' '.join([found, *(f'--cluster-dns {s["spec"]["clusterIP"]}' for s in services.get('items') or ())])


@command.command('list', cls=Verb)
@with_session
def list_(session: Session) -> None:
    """The tokens that there are; their secret halves are not shown."""
    found = session.http.get(SECRETS, {'fieldSelector': f'type={TYPE}'}).get('items') or []
    rows = [tuple(_plain(s, k) or '<none>' for k in ('token-id', 'expiration', 'description')) for s in found]
    say(aligned([('TOKEN', 'EXPIRES', 'DESCRIPTION'), *rows]))


@command.command('delete', cls=Verb)
@with_session
@click.argument('tokens', nargs=-1, required=True)
def delete(session: Session, tokens: Sequence[str]) -> None:
    """Take tokens (or their first halves) out of use."""
    for token in tokens:
        number = token.partition('.')[0]
        session.http.call('DELETE', f'{SECRETS}/bootstrap-token-{number}')
        say(f'token {number} deleted')


def publish(session: Session) -> None:
    """Let the cluster describe itself, as it is now. Raises CliError, Refused."""
    content = description(session.config.servers, session.config.ca_data)
    meta = {'name': 'cluster-info', 'namespace': 'kube-public'}
    if not _post(session, PUBLIC, {'kind': 'ConfigMap', 'metadata': meta, 'data': {'kubeconfig': content}}):
        merge = {'Content-Type': 'application/merge-patch+json'}
        session.http.call('PATCH', f'{PUBLIC}/cluster-info', None, {'data': {'kubeconfig': content}}, merge)
    named = {'metadata': {'name': READER, 'namespace': 'kube-public'}}
    rule = {'apiGroups': [''], 'resources': ['configmaps'], 'resourceNames': ['cluster-info'], 'verbs': ['get']}
    _post(session, f'{RBAC}/roles', {**named, 'kind': 'Role', 'rules': [rule]})
    group = 'rbac.authorization.k8s.io'
    _post(session, f'{RBAC}/rolebindings', {
        **named, 'kind': 'RoleBinding', 'roleRef': {'apiGroup': group, 'kind': 'Role', 'name': READER},
        'subjects': [{'apiGroup': group, 'kind': 'User', 'name': 'system:anonymous'}],
    })  # fmt: skip


def description(servers: Sequence[str], authority: bytes | None) -> str:
    """A kubeconfig without a user: where the cluster is, and whom to trust. Raises CliError."""
    import yaml  # noqa: PLC0415 — only here

    if authority is None:
        raise CliError('the kubeconfig names no certificate-authority, so a new node could not tell this cluster')
    data = base64.b64encode(authority).decode()
    clusters = [
        {'name': name, 'cluster': {'server': server, 'certificate-authority-data': data}}
        for name, server in zip(('', *(f'kubeling-{n}' for n in range(2, 99))), servers, strict=False)
    ]
    return str(yaml.safe_dump({'apiVersion': 'v1', 'kind': 'Config', 'clusters': clusters}, sort_keys=False))


def _post(session: Session, path: str, obj: Obj) -> bool:
    """False when it is there already."""
    try:
        session.http.call('POST', path, None, obj)
    except Refused as e:
        if e.reason == 'AlreadyExists':
            return False
        warn(f'error: {obj["kind"]} {obj["metadata"]["name"]} was not created')
        raise
    return True


def _plain(secret: Obj, key: str) -> str:
    return base64.b64decode((secret.get('data') or {}).get(key) or '').decode(errors='replace')
