"""Which resources the server has, and what a user may call them.

`po`, `pod`, `pods`, `pods.v1`, `deployments.apps`, `deployments.v1.apps`, `Deployment` all name a resource; `all` is a
category. Two requests in the aggregated form; a server without it is asked group by group.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kcore.meta.gvk import Resource
from kctl.verbs.lib.errors import CliError, Refused
from kctl.verbs.lib.http import Http

Obj = dict[str, Any]

AGGREGATED = ','.join(
    [
        'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList',
        'application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList',
        'application/json',
    ]
)


@dataclass(frozen=True, slots=True)
class Known:
    """One resource that the server serves."""

    resource: Resource
    singular: str
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """`pod`, `deployment.apps`: the prefix of an object's name in output."""
        group = self.resource.group
        return f'{self.resource.kind.lower()}.{group}' if group else self.resource.kind.lower()


class Catalog:
    """All resources, preferred versions first."""

    def __init__(self, known: Iterable[Known]) -> None:
        self.known = list(known)

    def category(self, name: str) -> list[Known]:
        """Resources of a category such as `all`; empty when it is none."""
        return [k for k in self.known if name in k.categories]

    def find(self, name: str) -> Known:
        """Raises CliError with kubectl's text."""
        wanted, _, rest = name.lower().partition('.')
        for known in self.known:
            r = known.resource
            if wanted not in (r.plural, known.singular, r.kind.lower(), *known.short):
                continue
            if rest in ('', r.group, f'{r.version}.{r.group}' if r.group else r.version):
                return known
        raise CliError(f'the server doesn\'t have a resource type "{name}"')

    def find_kind(self, api_version: str, kind: str) -> Known | None:
        """By what a manifest says."""
        return next((k for k in self.known if (k.resource.api_version, k.resource.kind) == (api_version, kind)), None)


def discover(http: Http) -> Catalog:
    found: list[Known] = []
    for root in ('/api', '/apis'):
        body = http.get(root, accept=AGGREGATED)
        if body.get('kind') == 'APIGroupDiscoveryList':
            found += _aggregated(body)
        else:
            found += _one_by_one(http, root, body)
    return Catalog(found)


def _aggregated(body: Obj) -> Iterable[Known]:
    for group in body.get('items') or ():
        name = (group.get('metadata') or {}).get('name') or ''
        for version in group.get('versions') or ():
            for r in version.get('resources') or ():
                kind = (r.get('responseKind') or {}).get('kind') or ''
                yield Known(
                    Resource(name, version['version'], r['resource'], kind, r.get('scope') == 'Namespaced'),
                    r.get('singularResource') or kind.lower(),
                    tuple(r.get('shortNames') or ()),
                    tuple(r.get('categories') or ()),
                    tuple(r.get('verbs') or ()),
                    tuple(s['subresource'] for s in r.get('subresources') or ()),
                )


def _one_by_one(http: Http, root: str, body: Obj) -> Iterable[Known]:
    if root == '/api':
        versions = [('', v) for v in body.get('versions') or ()]
    else:
        versions = [(g['name'], v['version']) for g in body.get('groups') or () for v in g.get('versions') or ()]
    for group, version in versions:
        try:
            listed = http.get(f'{root}/{group}/{version}' if group else f'{root}/{version}').get('resources') or ()
        except Refused:
            continue  # an aggregated API that is down must not hide the others
        for r in listed:
            if '/' in r['name']:
                continue
            below = tuple(s['name'].partition('/')[2] for s in listed if s['name'].startswith(r['name'] + '/'))
            yield Known(
                Resource(group, version, r['name'], r['kind'], bool(r.get('namespaced'))),
                r.get('singularName') or r['kind'].lower(),
                tuple(r.get('shortNames') or ()),
                tuple(r.get('categories') or ()),
                tuple(r.get('verbs') or ()),
                below,
            )
