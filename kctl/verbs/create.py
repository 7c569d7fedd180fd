"""`kctl create -f`, and the short forms `create namespace|deployment|configmap|serviceaccount|user NAME`."""

from __future__ import annotations

from typing import Any

import click

from kctl.verbs.lib import manifests
from kctl.verbs.lib.errors import CliError, Refused
from kctl.verbs.lib.output import print_object
from kctl.verbs.lib.session import Session, Verb, say, warn, with_session
from kctl.verbs.lib.users import create_user

Obj = dict[str, Any]

PARAMS = {'fieldManager': 'kctl-create', 'fieldValidation': 'Strict'}


@click.command('create', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
@manifests.FILES
@manifests.RECURSIVE
@click.option('--image', 'images', multiple=True, help='For a deployment: image of a container; may be repeated.')
@click.option('-r', '--replicas', type=int, default=1, help='For a deployment.')
@click.option('--from-literal', 'literals', multiple=True, help='For a configmap: key=value; may be repeated.')
@click.option('--group', 'groups', multiple=True, help='For a user: a group that it is in; may be repeated.')
@click.option('--lasts', default='', help='For a user: how long its certificate is good, such as 720h (a year).')
@click.option('--dry-run', default='none', type=click.Choice(['none', 'server', 'client']))
@click.option('-o', '--output', default='')
def command(session: Session, **options: Any) -> int:
    """Create objects from manifests, or `create namespace x`, `create deployment x --image=…`.

    `create user alice --group dev` prints a kubeconfig with a certificate of its own.
    """
    args = options['args']
    if args[:1] == ('user',):
        return _user(session, args, options)
    if bool(args) == bool(options['files']):
        raise CliError('must specify either -f or what to create')
    if args:
        found = [manifests.Manifest(_made(args, options), 'arguments')]
    else:
        found = manifests.read(options['files'], recursive=options['recursive'])
    code = 0
    for manifest in found:
        try:
            _create(session, manifest, options)
        except Refused as e:
            warn((e if args else manifests.while_('creating', manifest, e)).text())
            code = 1
        except CliError as e:
            warn(f'error: {e}')
            code = 1
    return code


def _user(session: Session, args: tuple[str, ...], options: dict[str, Any]) -> int:
    if len(args) != 2:
        raise CliError(f'exactly one NAME is required, got {len(args) - 1}')
    print(create_user(session, args[1], options['groups'], options['lasts']).decode(), end='')
    return 0


def _create(session: Session, manifest: manifests.Manifest, options: dict[str, Any]) -> None:
    known, obj = manifests.resolve(session, manifest)
    made = obj
    if options['dry_run'] != 'client':
        params = {**PARAMS, 'dryRun': 'All' if options['dry_run'] == 'server' else None}
        made = session.http.call('POST', known.resource.path(obj['metadata'].get('namespace')), params, obj)
    label = f'{known.label}/{made["metadata"].get("name", "")}'
    if options['output']:
        print_object(made, label, options['output'])
        return
    suffix = {'client': ' (dry run)', 'server': ' (server dry run)'}.get(options['dry_run'], '')
    say(f'{label} created{suffix}')


def _made(args: tuple[str, ...], options: dict[str, Any]) -> Obj:
    """The object of a short form. Raises CliError."""
    if len(args) != 2:
        raise CliError(f'exactly one NAME is required, got {len(args) - 1}')
    what, name = args
    meta: Obj = {'name': name}
    match what:
        case 'namespace' | 'ns':
            return {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': meta}
        case 'serviceaccount' | 'sa':
            return {'apiVersion': 'v1', 'kind': 'ServiceAccount', 'metadata': meta}
        case 'configmap' | 'cm':
            pairs = [text.partition('=') for text in options['literals']]
            if any(not equals for _, equals, _ in pairs):
                raise CliError('--from-literal: key=value is expected')
            return {'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': meta, 'data': {k: v for k, _, v in pairs}}
        case 'deployment' | 'deploy':
            return _deployment(name, options)
        case _:
            raise CliError(f'create {what}: write a manifest and use `kctl create -f`')


def _deployment(name: str, options: dict[str, Any]) -> Obj:
    if not options['images']:
        raise CliError('required flag(s) "image" not set')
    labels = {'app': name}
    containers = [
        {'name': image.rpartition('/')[2].partition(':')[0].partition('@')[0] or 'main', 'image': image}
        for image in options['images']
    ]
    template = {'metadata': {'labels': labels}, 'spec': {'containers': containers}}
    spec = {'replicas': options['replicas'], 'selector': {'matchLabels': labels}, 'template': template}
    return {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'metadata': {'name': name, 'labels': labels}, 'spec': spec}
