"""Discovery: which groups, versions and resources there are, in the legacy and in the aggregated form.

Both are made from the catalog, cached until it changes, and carry an ETag of their content. Sources: apiserver
pkg/endpoints/discovery, pkg/endpoints/discovery/aggregated; API_FACTS 2 and 3 on what clients read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import orjson

from kapi.aggregation.aggregator import Aggregator
from kapi.registry.catalog import Catalog
from kapi.registry.kind import Kind, Subresource
from kapi.registry.kind import Scale as ScaleSubresource
from kapi.registry.kind import Status as StatusSubresource
from kapi.server.negotiation import clauses

Obj = dict[str, Any]

GROUP_PRIORITY = (
    '', 'apiregistration.k8s.io', 'apps', 'events.k8s.io', 'authentication.k8s.io', 'authorization.k8s.io',
    'autoscaling', 'batch', 'certificates.k8s.io', 'networking.k8s.io', 'policy', 'rbac.authorization.k8s.io',
    'storage.k8s.io', 'admissionregistration.k8s.io', 'apiextensions.k8s.io', 'scheduling.k8s.io',
    'coordination.k8s.io', 'node.k8s.io', 'discovery.k8s.io', 'flowcontrol.apiserver.k8s.io',
)  # fmt: skip
"""Order in which clients resolve a short name that several groups have; unlisted groups follow by name."""


def version_rank(version: str) -> tuple[int, int, int, str]:
    """Sort key: v2 before v1 before v1beta1 before v1alpha1 before anything else."""
    body = version[1:] if version.startswith('v') else ''
    for rank, word in ((1, 'beta'), (2, 'alpha')):
        major, found, minor = body.partition(word)
        if found and major.isdecimal():
            return (rank, -int(major), -int(minor or 0), version)
    return (0, -int(body), 0, version) if body.isdecimal() else (3, 0, 0, version)


def groups_of(kinds: Iterable[Kind]) -> dict[str, dict[str, list[Kind]]]:
    """group → version → kinds, groups by priority, versions best first, kinds by plural."""
    found: dict[str, dict[str, list[Kind]]] = {}
    for kind in kinds:
        found.setdefault(kind.resource.group, {}).setdefault(kind.resource.version, []).append(kind)
    priority = {g: i for i, g in enumerate(GROUP_PRIORITY)}
    ordered = sorted(found, key=lambda g: (priority.get(g, len(priority)), g))
    return {
        g: {v: sorted(found[g][v], key=lambda k: k.resource.plural) for v in sorted(found[g], key=version_rank)}
        for g in ordered
    }


def _subresource_type(kind: Kind, sub: Subresource) -> tuple[str, str, str]:
    """(group, version, kind) of a subresource's body."""
    r = kind.resource
    if isinstance(sub, StatusSubresource):
        return r.group, r.version, r.kind
    if isinstance(sub, ScaleSubresource):
        return 'autoscaling', 'v1', 'Scale'
    return r.group if sub.group is None else sub.group, r.version if sub.version is None else sub.version, sub.kind


class Discovery:
    """The documents, by path; rebuilt when the catalog's generation has moved."""

    def __init__(self, catalog: Catalog, aggregator: Aggregator) -> None:
        self._catalog = catalog
        self._aggregator = aggregator
        self._generation = (-1, -1)
        self._documents: dict[str, bytes] = {}

    def legacy(self, path: str) -> bytes | None:
        """`/api`, `/apis`, `/api/v1`, `/apis/G`, `/apis/G/V`; None when there is no such document."""
        self._refresh()
        return self._documents.get(path)

    def aggregated(self, path: str, version: str) -> tuple[bytes, str]:
        """(document, ETag) for `/api` or `/apis` in version v2 or v2beta1."""
        self._refresh()
        key = f'{path};{version}'
        if key not in self._documents:
            self._documents[key] = orjson.dumps(self._aggregated(core=path == '/api', version=version))
        body = self._documents[key]
        return body, f'"{hashlib.sha512(body).hexdigest().upper()}"'

    def _refresh(self) -> None:
        remotes = self._aggregator.remotes()
        generation = (self._catalog.generation, self._aggregator.generation)
        if self._generation == generation:
            return
        self._generation = generation
        groups = groups_of(self._catalog)
        own = {g: dict(versions) for g, versions in groups.items()}
        for remote in remotes:
            groups.setdefault(remote.group, {}).setdefault(remote.version, [])
        found: dict[str, Obj] = {
            '/api': {'kind': 'APIVersions', 'versions': list(groups.get('', {})), 'serverAddressByClientCIDRs': []},
            '/apis': {
                'kind': 'APIGroupList',
                'apiVersion': 'v1',
                'groups': [_group(g, groups[g]) for g in groups if g],
            },
        }
        for group, versions in groups.items():
            if group:
                found[f'/apis/{group}'] = {'kind': 'APIGroup', 'apiVersion': 'v1', **_group(group, versions)}
            for version, kinds in own.get(group, {}).items():
                path = f'/apis/{group}/{version}' if group else f'/api/{version}'
                found[path] = _resource_list(f'{group}/{version}' if group else version, kinds)
        self._documents = {path: orjson.dumps(body) for path, body in found.items()}

    def _aggregated(self, *, core: bool, version: str) -> Obj:
        items = []
        found: dict[str, dict[str, Obj]] = {
            group: {v: _version(v, [_aggregated_resource(k) for k in kinds]) for v, kinds in versions.items()}
            for group, versions in groups_of(self._catalog).items()
        }
        for remote in self._aggregator.remotes():
            fresh = 'Current' if remote.available else 'Stale'
            found.setdefault(remote.group, {})[remote.version] = _version(remote.version, remote.resources, fresh)
        for group, versions in found.items():
            if (group == '') != core:
                continue
            listed = list(versions.values())
            meta: Obj = {'name': group, 'creationTimestamp': None} if group else {'creationTimestamp': None}
            items.append({'metadata': meta, 'versions': listed})
        return {
            'kind': 'APIGroupDiscoveryList',
            'apiVersion': f'apidiscovery.k8s.io/{version}',
            'metadata': {},
            'items': items,
        }


def _version(version: str, resources: list[Obj], freshness: str = 'Current') -> Obj:
    return {'version': version, 'resources': resources, 'freshness': freshness}


def _group(name: str, versions: Iterable[str]) -> Obj:
    listed = [{'groupVersion': f'{name}/{v}', 'version': v} for v in versions]
    return {'name': name, 'versions': listed, 'preferredVersion': listed[0]}


def _resource_list(group_version: str, kinds: Iterable[Kind]) -> Obj:
    resources: list[Obj] = []
    for kind in kinds:
        r = kind.resource
        entry: Obj = {
            'name': r.plural, 'singularName': kind.singular or r.kind.lower(), 'namespaced': r.namespaced,
            'kind': r.kind, 'verbs': sorted(kind.verbs),
        }  # fmt: skip
        if kind.short:
            entry['shortNames'] = list(kind.short)
        if kind.categories:
            entry['categories'] = list(kind.categories)
        if 'create' in kind.verbs and 'get' in kind.verbs:
            entry['storageVersionHash'] = hashlib.sha256(f'{r.api_version}/{r.kind}'.encode()).hexdigest()[:11] + '='
        resources.append(entry)
        for sub in kind.subresources:
            group, version, name = _subresource_type(kind, sub)
            found: Obj = {
                'name': f'{r.plural}/{sub.name}', 'singularName': '', 'namespaced': r.namespaced, 'kind': name,
                'verbs': sorted(sub.verbs),
            }  # fmt: skip
            if (group, version) != (r.group, r.version):
                found['group'], found['version'] = group, version
            resources.append(found)
    return {'kind': 'APIResourceList', 'apiVersion': 'v1', 'groupVersion': group_version, 'resources': resources}


def _aggregated_resource(kind: Kind) -> Obj:
    r = kind.resource
    entry: Obj = {
        'resource': r.plural,
        'responseKind': {'group': r.group, 'version': r.version, 'kind': r.kind},
        'scope': 'Namespaced' if r.namespaced else 'Cluster',
        'singularResource': kind.singular or r.kind.lower(),
        'verbs': sorted(kind.verbs),
    }
    if kind.short:
        entry['shortNames'] = list(kind.short)
    if kind.categories:
        entry['categories'] = list(kind.categories)
    if kind.subresources:
        entry['subresources'] = [_aggregated_subresource(kind, s) for s in kind.subresources]
    return entry


def _aggregated_subresource(kind: Kind, sub: Subresource) -> Obj:
    group, version, name = _subresource_type(kind, sub)
    return {
        'subresource': sub.name,
        'responseKind': {'group': group, 'version': version, 'kind': name},
        'verbs': sorted(sub.verbs),
    }


def asked_version(accept: str) -> str:
    """v2 or v2beta1 when the client prefers the aggregated form, else empty."""
    for clause in clauses(accept):
        if clause.media not in {'application/json', '*/*', 'application/*'}:
            continue
        if clause.param('as') == 'APIGroupDiscoveryList' and clause.param('g') == 'apidiscovery.k8s.io':
            if clause.param('v') in {'v2', 'v2beta1'}:
                return clause.param('v')
            continue
        return ''
    return ''
