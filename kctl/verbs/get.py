"""`kctl get`: lists and objects, as the server's Table or in another format; -w follows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from kctl import printers
from kctl.verbs.lib import manifests
from kctl.verbs.lib.errors import CliError, Refused
from kctl.verbs.lib.session import Session, Verb, say, warn, with_session
from kctl.verbs.lib.targets import Target, parse

Obj = dict[str, Any]
T = TypeVar('T')

TABLE = ','.join(f'application/json;as=Table;v={v};g=meta.k8s.io' for v in ('v1', 'v1beta1')) + ',application/json'
PAGE = 500
FORMATS = ('', 'wide', 'name', 'yaml', 'json', 'jsonpath', 'jsonpath-as-json', 'custom-columns')


@click.command('get', cls=Verb)
@with_session
@click.argument('args', nargs=-1)
@click.option('-o', '--output', default='', help='wide, name, yaml, json, jsonpath=…, custom-columns=…')
@click.option('-A', '--all-namespaces', is_flag=True)
@click.option('-l', '--selector', default='', help='Label selector.')
@click.option('--field-selector', default='', help='Field selector.')
@click.option('-w', '--watch', is_flag=True, help='After listing, go on with changes.')
@click.option('--watch-only', is_flag=True, help='Changes only.')
@click.option('--show-labels', is_flag=True)
@click.option('-L', '--label-columns', default='', help='Labels to show as columns, separated by commas.')
@click.option('--no-headers', is_flag=True)
@click.option('--show-managed-fields', is_flag=True)
@click.option('--ignore-not-found', is_flag=True)
@click.option('--subresource', default='', help='status or scale.')
@manifests.FILES
@manifests.RECURSIVE
def command(session: Session, **options: Any) -> int | None:
    """Show one or many resources: `get pods`, `get pod/a svc/b`, `get nodes,pods -o wide`."""
    form = options['output'].partition('=')[0]
    if form not in FORMATS:
        raise CliError(f'unable to match a printer suitable for the output format "{form}"')
    request = Getting(session, options)
    if options['files']:
        found = [
            manifests.resolve(session, m) for m in manifests.read(options['files'], recursive=options['recursive'])
        ]
        targets = [Target(k, o['metadata'].get('name'), o['metadata'].get('namespace')) for k, o in found]
    else:
        targets = parse(session, options['args'])
    if options['watch'] or options['watch_only']:
        return request.watch(targets)
    if form in ('', 'wide'):
        return request.tables(targets)
    return request.objects(targets, form)


class Getting:
    """One invocation."""

    def __init__(self, session: Session, options: dict[str, Any]) -> None:
        self.session, self.options = session, options
        self.selectors = {'labelSelector': options['selector'], 'fieldSelector': options['field_selector']}
        self.code = 0
        """The exit code: 1 once something that was named is not there."""

    def path(self, target: Target) -> str:
        if target.name is None:
            return target.known.resource.path(None if self.options['all_namespaces'] else target.namespace)
        if self.options['all_namespaces'] and target.known.resource.namespaced:
            raise CliError('a resource cannot be retrieved by name across all namespaces')
        return target.path + (f'/{self.options["subresource"]}' if self.options['subresource'] else '')

    def tables(self, targets: Sequence[Target]) -> int:
        """Tables of several resources are separated by an empty line, their rows named `pod/x`."""
        several = len({t.known for t in targets}) > 1
        shown = False
        groups: dict[str, tuple[Target, list[Obj]]] = {}
        for target, table in self._each(targets, self._table):
            groups.setdefault(target.known.label, (target, []))[1].append(table)
        for target, tables in groups.values():
            rows = [r for t in tables for r in t.get('rows') or ()]
            lines = self._printer(target, several).lines({**tables[0], 'rows': rows})
            if lines:
                say(('\n' if shown else '') + '\n'.join(lines))
                shown = True
        if not shown and not self.code and not self.options['ignore_not_found']:
            self._nothing(targets)
        return self.code

    def _each(self, targets: Sequence[Target], ask: Callable[[Target], T]) -> Iterator[tuple[Target, T]]:
        """The answers; of a name that is not there it is said so, and the others are shown."""
        for target in targets:
            try:
                yield target, ask(target)
            except Refused as e:
                if e.code != 404 or target.name is None:
                    raise
                if not self.options['ignore_not_found']:
                    warn(e.text())
                    self.code = 1

    def _table(self, target: Target) -> Obj:
        params = {**self.selectors, 'limit': PAGE} if target.name is None else {}
        table = self.session.http.get(self.path(target), params, accept=TABLE)
        if table.get('kind') != 'Table':
            return _fallback_table(table)
        token = (table.get('metadata') or {}).get('continue')
        while token:
            more = self.session.http.get(self.path(target), {**params, 'continue': token}, accept=TABLE)
            table['rows'] = [*(table.get('rows') or ()), *(more.get('rows') or ())]
            token = (more.get('metadata') or {}).get('continue')
        return table

    def _printer(self, target: Target, several: bool) -> printers.TablePrinter:
        options = self.options
        return printers.TablePrinter(
            wide=options['output'] == 'wide',
            namespaces=options['all_namespaces'] and target.known.resource.namespaced,
            show_labels=options['show_labels'],
            headers=not options['no_headers'],
            prefix=target.known.label if several else '',
        ).with_labels([k for k in options['label_columns'].split(',') if k])

    def _nothing(self, targets: Sequence[Target]) -> None:
        namespaced = any(t.known.resource.namespaced for t in targets) and not self.options['all_namespaces']
        warn(f'No resources found in {self.session.namespace} namespace.' if namespaced else 'No resources found')

    def objects(self, targets: Sequence[Target], form: str) -> int:
        items: list[Obj] = []
        named: list[str] = []
        for target, found in self._each(targets, self._objects):
            items += found
            named += [f'{target.known.label}/{o["metadata"]["name"]}' for o in found]
        if form == 'name':
            for line in named:
                say(line)
            return self.code
        single = len(targets) == 1 and targets[0].name is not None
        if single and not items:
            return self.code
        if not self.options['show_managed_fields']:
            items = [printers.without_managed_fields(o) for o in items]
        text = printers.structured(self.options['output'], items, single=single, headers=not self.options['no_headers'])
        click.echo(text, nl=False)
        return self.code

    def _objects(self, target: Target) -> list[Obj]:
        if target.name is not None:
            return [self.session.http.get(self.path(target))]
        items: list[Obj] = []
        token = ''
        while True:
            params = {**self.selectors, 'limit': PAGE, 'continue': token}
            body = self.session.http.get(self.path(target), params)
            r = target.known.resource
            items += [{'apiVersion': r.api_version, 'kind': r.kind, **i} for i in body.get('items') or ()]
            token = (body.get('metadata') or {}).get('continue') or ''
            if not token:
                return items

    def watch(self, targets: Sequence[Target]) -> int:
        if len({t.known for t in targets}) != 1 or (len(targets) > 1):
            raise CliError('you may only specify a single resource type')
        target = targets[0]
        if target.name is not None:
            self.selectors = {'fieldSelector': f'metadata.name={target.name}'}
            target = Target(target.known, None, target.namespace)
        form = self.options['output'].partition('=')[0]
        as_table = form in ('', 'wide')
        accept = TABLE if as_table else 'application/json'
        first = self.session.http.get(self.path(target), {**self.selectors, 'limit': PAGE}, accept=accept)
        printer = self._printer(target, several=False)
        if not self.options['watch_only']:
            self._show(first, target, printer)
        revision = (first.get('metadata') or {}).get('resourceVersion') or ''
        params = {**self.selectors, 'resourceVersion': revision, 'watch': 'true'}
        for line in self.session.http.lines(self.path(target), params, accept=accept):
            event = json.loads(line)
            if event['type'] == 'ERROR':
                raise Refused(event['object'])
            if event['type'] != 'BOOKMARK':
                self._show(event['object'], target, printer)
        return 0

    def _show(self, obj: Obj, target: Target, printer: printers.TablePrinter) -> None:
        if obj.get('kind') == 'Table':
            for line in printer.lines(obj):
                say(line)
            return
        items = obj.get('items', [obj])
        for item in items or ():
            whole = {'apiVersion': target.known.resource.api_version, 'kind': target.known.resource.kind, **item}
            if self.options['output'] == 'name':
                say(f'{target.known.label}/{item["metadata"]["name"]}')
                continue
            shown = printers.without_managed_fields(whole)
            text = printers.structured(self.options['output'], [shown], single=True, headers=False)
            click.echo(f'---\n{text}' if self.options['output'] == 'yaml' else text, nl=False)


def _fallback_table(body: Obj) -> Obj:
    """NAME and creation time, from a server without Tables."""
    items = body.get('items', [body])
    columns = [{'name': 'Name'}, {'name': 'Created At'}]
    rows = [
        {'cells': [i['metadata']['name'], i['metadata'].get('creationTimestamp')], 'object': i} for i in items or ()
    ]
    return {'kind': 'Table', 'metadata': body.get('metadata') or {}, 'columnDefinitions': columns, 'rows': rows}
