"""CustomResourceDefinition: a kind that is declared at run time; `kapi.crd` builds its `Kind` from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kapi.crd.budget import check_costs
from kapi.crd.checks import check_columns, check_conversion, check_schema, check_selectable, check_subresources
from kapi.kinds.base import BuiltinStrategy, spec_of
from kapi.kinds.printing import CREATED_AT
from kapi.kinds.rules import complaints, duplicate, immutable, invalid, one_of, required
from kapi.registry.kind import Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta import names
from kcore.meta.gvk import Resource
from kcore.meta.objects import condition_is, get_path

FINALIZER = 'customresourcecleanup.apiextensions.k8s.io'
APPROVED = 'api-approved.kubernetes.io'
NO_SCHEMA_PRESERVE = (
    'cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead'
)


class CustomResourceDefinitionStrategy(BuiltinStrategy):
    unconditional_update = False
    deletion_finalizers = (FINALIZER,)

    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        found = spec.setdefault('names', {})
        kind = found.get('kind') or ''
        if not found.get('singular'):
            found['singular'] = kind.lower()
        if not found.get('listKind') and kind:
            found['listKind'] = f'{kind}List'
        if not (spec.get('conversion') or {}).get('strategy'):
            spec.setdefault('conversion', {})['strategy'] = 'None'
        service = get_path(spec, 'conversion.webhook.clientConfig.service')
        if isinstance(service, dict):
            service.setdefault('port', 443)

    def prepare(self, new: Obj, old: Obj | None) -> None:
        stored = [v.get('name') for v in spec_of(new).get('versions') or () if v.get('storage')][:1]
        if old is None:
            accepted = {'plural': '', 'kind': ''}
            new['status'] = {'conditions': [], 'acceptedNames': accepted, 'storedVersions': stored}
            return
        status = new.setdefault('status', {})
        known = status.get('storedVersions') or []
        if stored and stored[0] not in known:
            status['storedVersions'] = [*known, *stored]

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec, name = new.get('spec') or {}, new['metadata'].get('name') or ''
        group, plural = spec.get('group') or '', get_path(spec, 'names.plural') or ''
        if name != f'{plural}.{group}':
            yield invalid('metadata.name', name, 'must be spec.names.plural+"."+spec.group')
        yield from _group(group, new['metadata'].get('annotations') or {})
        yield from one_of('spec.scope', spec.get('scope'), ('Cluster', 'Namespaced'))
        yield from _names(spec.get('names') or {})
        if spec.get('preserveUnknownFields'):
            yield invalid('spec.preserveUnknownFields', True, NO_SCHEMA_PRESERVE)
        yield from check_conversion(spec.get('conversion'))
        yield from _versions(spec.get('versions') or [], get_path(old or {}, 'spec.versions') or [])
        if old is not None:
            yield from _unchanged(spec, old)
            yield from _stored(new)

    def validate_status(self, new: Obj, old: Obj) -> Iterator[Invalid]:
        yield from _stored(new)


def _group(group: str, annotations: dict[str, Any]) -> Iterator[Invalid]:
    if not group:
        yield required('spec.group')
        return
    if '.' not in group:
        yield invalid('spec.group', group, 'should be a domain with at least one dot')
    else:
        yield from complaints('spec.group', group, names.dns_subdomain(group))
    protected = group.endswith(('.k8s.io', '.kubernetes.io'))
    approval = annotations.get(APPROVED, '')
    if protected and not approval.startswith(('https://', 'unapproved')):
        why = (
            f'protected groups must have approval annotation "{APPROVED}", '
            'see https://github.com/kubernetes/enhancements/pull/1111'
        )
        yield required(f'metadata.annotations[{APPROVED}]', why)


def _names(found: Obj) -> Iterator[Invalid]:
    for field in ('plural', 'singular', 'kind', 'listKind'):
        value = found.get(field) or ''
        if not value:
            yield required(f'spec.names.{field}')
        else:
            yield from complaints(f'spec.names.{field}', value, names.dns_1035_label(value.lower()))
    for field in ('shortNames', 'categories'):
        for i, value in enumerate(found.get(field) or ()):
            yield from complaints(f'spec.names.{field}[{i}]', value, names.dns_1035_label(value))
    if found.get('kind') and found.get('kind') == found.get('listKind'):
        yield invalid('spec.names.listKind', found['listKind'], 'kind and listKind may not be the same')


def _unchanged(spec: Obj, old: Obj) -> Iterator[Invalid]:
    """The identity of an established definition stays."""
    if not condition_is(old, 'Established'):
        return
    before = old.get('spec') or {}
    for field in ('group', 'scope', 'names.plural', 'names.kind'):
        yield from immutable(f'spec.{field}', get_path(spec, field), get_path(before, field))


def _stored(new: Obj) -> Iterator[Invalid]:
    status, spec = new.get('status') or {}, new.get('spec') or {}
    listed = [v.get('name') for v in spec.get('versions') or ()]
    stored = status.get('storedVersions') or []
    for i, name in enumerate(stored):
        if name not in listed:
            yield invalid(f'status.storedVersions[{i}]', name, 'must appear in spec.versions')
    storage = next((v.get('name') for v in spec.get('versions') or () if v.get('storage')), None)
    if storage is not None and storage not in stored:
        yield invalid('status.storedVersions', stored, f'must have the storage version {storage}')


def _versions(versions: list[Obj], before: list[Obj]) -> Iterator[Invalid]:
    """`before` of an update: a schema that did not change may cost what it did."""
    one_storage = 'must have exactly one version marked as storage version'
    if not versions:
        yield required('spec.versions', one_storage)
        return
    if sum(bool(v.get('storage')) for v in versions) != 1:
        yield invalid('spec.versions', [v.get('name') for v in versions], one_storage)
    schemas = [get_path(v, 'schema.openAPIV3Schema') for v in versions]
    shared = all(s == schemas[0] for s in schemas)
    known = [(v.get('name'), get_path(v, 'schema.openAPIV3Schema')) for v in before]
    seen: set[str] = set()
    for i, version in enumerate(versions):
        at, name = f'spec.versions[{i}]', version.get('name') or ''
        yield from complaints(f'{at}.name', name, names.dns_1035_label(name))
        if name in seen:
            yield duplicate(f'{at}.name', name)
        seen.add(name)
        if schemas[i] is None:
            yield required(f'{at}.schema.openAPIV3Schema', 'schemas are required')
            continue
        # Like upstream, whose internal form has one schema when all versions agree.
        where = 'spec.validation.openAPIV3Schema' if shared else f'{at}.schema.openAPIV3Schema'
        if not shared or i == 0:
            broken = list(check_schema(schemas[i], where))
            yield from broken
            if not broken and (version.get('name'), schemas[i]) not in known:
                yield from check_costs(schemas[i], where)
        yield from check_columns(version.get('additionalPrinterColumns'), f'{at}.additionalPrinterColumns')
        yield from check_subresources(version.get('subresources'), f'{at}.subresources')
        yield from check_selectable(version.get('selectableFields'), schemas[i], f'{at}.selectableFields')


KIND = Kind(
    resource=Resource(
        'apiextensions.k8s.io', 'v1', 'customresourcedefinitions', 'CustomResourceDefinition', namespaced=False
    ),
    strategy=CustomResourceDefinitionStrategy(),
    short=('crd', 'crds'),
    categories=('api-extensions',),
    subresources=(Status(),),
    columns=(CREATED_AT,),
)
