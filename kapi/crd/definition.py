"""From a CustomResourceDefinition to the `Kind`s it declares, one per version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kapi.crd.columns import columns_of
from kapi.crd.conversion import Converter, VersionView
from kapi.crd.rules import compile_tree
from kapi.crd.strategy import CustomStrategy
from kapi.registry.kind import STANDARD_VERBS, Kind, Scale, Status, Subresource
from kapi.schemas.structural import PRESERVE, Props, Structural
from kcore.meta.gvk import Resource
from kcore.meta.objects import condition_is, get_path

Obj = dict[str, Any]
ANYTHING: Props = {'type': 'object', PRESERVE: True}
"""Stands in for a version without a schema (status of an old object; new ones must have one)."""


TERMINATING_VERBS = tuple(v for v in STANDARD_VERBS if v != 'create')
"""What is left while the definition is being deleted."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a definition: what the catalog gets when it is served, and the schema beside it."""

    kind: Kind
    schema: Structural
    served: bool
    storage: bool


def build(crd: Obj, converter: Converter) -> tuple[Version, ...]:
    """The versions of an accepted definition. Raises RuleError when a rule cannot be compiled any more."""
    spec = crd['spec']
    group, names = spec['group'], spec['names']
    schemas: Mapping[str, Structural] = {
        f'{group}/{v["name"]}': Structural(get_path(v, 'schema.openAPIV3Schema') or ANYTHING, v['name'], names['kind'])
        for v in spec['versions']
    }
    storage = next(v['name'] for v in spec['versions'] if v['storage'])
    found = []
    for version in spec['versions']:
        schema = schemas[f'{group}/{version["name"]}']
        view = VersionView(f'{group}/{version["name"]}', f'{group}/{storage}', schemas, converter)
        kind = _kind(crd, version, schema, view)
        found.append(Version(kind, schema, bool(version.get('served')), bool(version.get('storage'))))
    return tuple(found)


def _kind(crd: Obj, version: Obj, schema: Structural, view: VersionView) -> Kind:
    spec = crd['spec']
    names = spec['names']
    subresources = _subresources(version.get('subresources') or {})
    scales = [s for s in subresources if isinstance(s, Scale)]
    has_status = any(isinstance(s, Status) for s in subresources)
    strategy = CustomStrategy(
        schema, compile_tree(schema.props), has_status=has_status,
        replicas=tuple(path for s in scales for path in (s.replicas, s.status_replicas)),
        warning=_deprecation(crd, version),
    )  # fmt: skip
    resource = Resource(
        spec['group'], version['name'], names['plural'], names['kind'], namespaced=spec['scope'] == 'Namespaced'
    )
    verbs = TERMINATING_VERBS if condition_is(crd, 'Terminating') else STANDARD_VERBS
    return Kind(
        resource,
        strategy,
        singular=names.get('singular') or names['kind'].lower(),
        short=tuple(names.get('shortNames') or ()),
        categories=tuple(names.get('categories') or ()),
        verbs=verbs,
        subresources=subresources,
        columns=columns_of(version.get('additionalPrinterColumns')),
        selectable={p: p for f in version.get('selectableFields') or () if (p := f['jsonPath'].lstrip('.'))},
        conversion=view,
        edition=f'{crd["metadata"].get("uid", "")}.{crd["metadata"].get("generation", "")}',
        plural_kind=names.get('listKind') or '',
    )


def _subresources(declared: Obj) -> tuple[Subresource, ...]:
    found: list[Subresource] = []
    if declared.get('status') is not None:
        found.append(Status())
    scale = declared.get('scale')
    if scale is not None:
        selector = (scale.get('labelSelectorPath') or '').lstrip('.')
        found.append(Scale(scale['specReplicasPath'].lstrip('.'), scale['statusReplicasPath'].lstrip('.'), selector))
    return tuple(found)


def _deprecation(crd: Obj, version: Obj) -> str:
    if not version.get('deprecated'):
        return ''
    group, kind = crd['spec']['group'], crd['spec']['names']['kind']
    return version.get('deprecationWarning') or f'{group}/{version["name"]} {kind} is deprecated'
