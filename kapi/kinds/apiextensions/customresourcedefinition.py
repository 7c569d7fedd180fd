"""CustomResourceDefinition: a kind that is declared at run time; the server builds its `Kind` from it."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.base import BuiltinStrategy, spec_of
from kapi.kinds.printing import CREATED_AT
from kapi.kinds.rules import complaints, immutable, invalid, one_of, required
from kapi.registry.kind import Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta import names
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path

FINALIZER = 'customresourcecleanup.apiextensions.k8s.io'


class CustomResourceDefinitionStrategy(BuiltinStrategy):
    unconditional_update = False

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

    def prepare(self, new: Obj, old: Obj | None) -> None:
        if old is None:
            stored = [v.get('name') for v in spec_of(new).get('versions') or () if v.get('storage')]
            accepted = {'plural': '', 'kind': ''}
            new['status'] = {'conditions': [], 'acceptedNames': accepted, 'storedVersions': stored[:1]}

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec, name = new.get('spec') or {}, new['metadata'].get('name') or ''
        group, plural = spec.get('group') or '', get_path(spec, 'names.plural') or ''
        if name != f'{plural}.{group}':
            yield invalid('metadata.name', name, 'must be spec.names.plural+"."+spec.group')
        if not group:
            yield required('spec.group')
        elif '.' not in group:
            yield invalid('spec.group', group, 'should be a domain with at least one dot')
        else:
            yield from complaints('spec.group', group, names.dns_subdomain(group))
        yield from one_of('spec.scope', spec.get('scope'), ('Cluster', 'Namespaced'))
        for field in ('plural', 'singular', 'kind', 'listKind'):
            value = get_path(spec, f'names.{field}') or ''
            if not value:
                yield required(f'spec.names.{field}')
            else:
                yield from complaints(f'spec.names.{field}', value, names.dns_1035_label(value.lower()))
        yield from one_of('spec.conversion.strategy', get_path(spec, 'conversion.strategy'), ('None', 'Webhook'))
        yield from _versions(spec.get('versions') or [])
        if old is not None:
            before = old.get('spec') or {}
            for field in ('group', 'scope'):
                yield from immutable(f'spec.{field}', spec.get(field), before.get(field))
            for field in ('plural', 'kind'):
                now, then = get_path(spec, f'names.{field}'), get_path(before, f'names.{field}')
                yield from immutable(f'spec.names.{field}', now, then)


def _versions(versions: list[Obj]) -> Iterator[Invalid]:
    if not versions:
        yield required('spec.versions', 'must have exactly one version marked as storage version')
        return
    if sum(bool(v.get('storage')) for v in versions) != 1:
        yield invalid('spec.versions', versions, 'must have exactly one version marked as storage version')
    seen: set[str] = set()
    for i, version in enumerate(versions):
        at, name = f'spec.versions[{i}]', version.get('name') or ''
        yield from complaints(f'{at}.name', name, names.dns_1035_label(name))
        if name in seen:
            yield invalid('spec.versions', versions, 'must contain unique version names')
        seen.add(name)
        root = get_path(version, 'schema.openAPIV3Schema')
        if root is None:
            yield required(f'{at}.schema.openAPIV3Schema', 'schemas are required')
        elif root.get('type') != 'object':
            at_type = f'{at}.schema.openAPIV3Schema.type'
            if not root.get('type'):
                yield required(at_type, 'must not be empty at the root')
            else:
                yield invalid(at_type, root['type'], 'must be object at the root')


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
