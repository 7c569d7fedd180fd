"""`kctl apply -f`: make the objects be as the manifests say.

As with kubectl, plain `apply` keeps what was applied last in an annotation of the object and patches the difference, so
that both tools can be used on the same objects; `--server-side` leaves the work, and the ownership of fields, to the
server.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from kctl.verbs.lib import manifests
from kctl.verbs.lib.errors import CliError, Refused
from kctl.verbs.lib.manifests import Manifest
from kctl.verbs.lib.output import print_object
from kctl.verbs.lib.session import Session, Verb, say, warn, with_session

if TYPE_CHECKING:
    from kctl.verbs.lib.discovery import Known

Obj = dict[str, Any]

LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration'
MANAGER = 'kubectl-client-side-apply'
"""kubectl's own name: the two tools are one manager of the fields that they apply."""
APPLY = 'application/apply-patch+yaml'
STRATEGIC, MERGE = 'application/strategic-merge-patch+json', 'application/merge-patch+json'
ATTEMPTS = 5
"""Tries of a patch that conflicts with another writer."""


@click.command('apply', cls=Verb)
@with_session
@manifests.FILES
@manifests.RECURSIVE
@click.option('--server-side', is_flag=True, help='Let the server merge and record who owns which field.')
@click.option('--force-conflicts', is_flag=True, help='With --server-side: take over fields that others own.')
@click.option('--field-manager', default='', help='Name to own the fields under.')
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
            if options['server_side']:
                done, after = _server_side(session, known, obj, options)
            else:
                done, after = _client_side(session, known, obj, options)
        except Refused as e:
            warn(manifests.while_('applying', manifest, e).text())
            code = 1
        except CliError as e:
            warn(f'error: {e}')
            code = 1
        else:
            _report(known, manifest, done, after, options)
    return code


def _report(known: Known, manifest: Manifest, done: str, after: Obj, options: dict[str, Any]) -> None:
    label = f'{known.label}/{manifest.name}'
    if options['output']:
        print_object(after, label, options['output'])
        return
    suffix = {'client': ' (dry run)', 'server': ' (server dry run)'}.get(options['dry_run'], '')
    say(f'{label} {done}{suffix}')


def _params(options: dict[str, Any], manager: str) -> dict[str, Any]:
    return {
        'fieldManager': options['field_manager'] or manager,
        'fieldValidation': 'Strict',
        'dryRun': 'All' if options['dry_run'] == 'server' else None,
    }


def _server_side(session: Session, known: Known, obj: Obj, options: dict[str, Any]) -> tuple[str, Obj]:
    if options['dry_run'] == 'client':
        raise CliError("--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)")
    params = _params(options, 'kubectl') | {'force': 'true' if options['force_conflicts'] else 'false'}
    path = known.resource.path(obj['metadata'].get('namespace'), obj['metadata']['name'])
    after = session.http.call('PATCH', path, params, json.dumps(obj).encode(), {'Content-Type': APPLY})
    return 'serverside-applied', after


def _client_side(session: Session, known: Known, obj: Obj, options: dict[str, Any]) -> tuple[str, Obj]:
    """(what was done, the object). A patch that conflicts is computed anew."""
    wanted = annotated(obj)
    meta = obj['metadata']
    path = known.resource.path(meta.get('namespace'), meta['name'])
    params = _params(options, MANAGER)
    for attempt in range(ATTEMPTS):
        try:
            live = session.http.get(path)
        except Refused as e:
            if e.code != 404:
                raise
            if options['dry_run'] == 'client':
                return 'created', obj
            collection = known.resource.path(meta.get('namespace'))
            return 'created', session.http.call('POST', collection, params, wanted)
        change, kind = difference(wanted, live, known)
        if not change or options['dry_run'] == 'client':
            return ('configured' if change else 'unchanged'), live
        try:
            after = session.http.call('PATCH', path, params, json.dumps(change).encode(), {'Content-Type': kind})
        except Refused as e:
            if e.reason != 'Conflict' or attempt == ATTEMPTS - 1:
                raise
            continue
        same = after['metadata'].get('resourceVersion') == live['metadata'].get('resourceVersion')
        return ('unchanged' if same and options['dry_run'] == 'none' else 'configured'), after
    raise AssertionError('the last attempt returns or raises')


def annotated(obj: Obj) -> Obj:
    """`obj` with itself, as compact JSON, in the annotation that kubectl uses for the same purpose."""
    meta = obj['metadata']
    notes = {k: v for k, v in (meta.get('annotations') or {}).items() if k != LAST_APPLIED}
    bare = {**obj, 'metadata': {**meta, 'annotations': notes}}
    text = json.dumps(bare, sort_keys=True, separators=(',', ':'), ensure_ascii=False) + '\n'
    return {**bare, 'metadata': {**meta, 'annotations': {**notes, LAST_APPLIED: text}}}


def difference(wanted: Obj, live: Obj, known: Known) -> tuple[Obj, str]:
    """(patch, its content type); the patch is empty when nothing but the annotation could change, and does not."""
    from kapi.schemas import builtin  # noqa: PLC0415 — only when there is something to compare
    from kctl.verbs.lib import threeway  # noqa: PLC0415

    recorded = (live['metadata'].get('annotations') or {}).get(LAST_APPLIED)
    try:
        last = json.loads(recorded) if recorded else {}
    except ValueError:
        last = {}
    r = known.resource
    schema = builtin.find(r.group, r.version, r.kind)
    # The annotation itself would always differ from the one inside `last`, which has none.
    last.get('metadata', {}).get('annotations', {}).pop(LAST_APPLIED, None)
    change = threeway.patch(last, wanted, live, schema.root if schema else None)
    return change, STRATEGIC if schema else MERGE
