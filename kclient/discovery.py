"""Which resources the API serves, from its discovery documents."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from kclient.api import Client
from kclient.errors import ApiError, Unavailable, failure, from_status
from kclient.model import Obj
from kcore.meta.gvk import Resource


@dataclass(frozen=True, slots=True)
class Served:
    """One resource in its group's preferred version."""

    resource: Resource
    verbs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found. `failed` maps group/version to the error of those that did not answer."""

    served: tuple[Served, ...]
    failed: dict[str, str]

    def find(self, api_version: str, kind: str) -> Resource | None:
        """The resource of a kind as an owner reference names it; any version of the group will do."""
        group = api_version.rpartition('/')[0]
        return next((s.resource for s in self.served if s.resource.kind == kind and s.resource.group == group), None)

    def serves(self, r: Resource) -> bool:
        return any(s.resource == r for s in self.served)

    def with_verbs(self, *verbs: str) -> list[Resource]:
        """Resources that have all of `verbs`."""
        return [s.resource for s in self.served if s.verbs.issuperset(verbs)]


async def discover(client: Client) -> Discovery:
    """Ask for all groups. Raises ApiError only when the list of groups itself cannot be had."""
    versions = ['v1']
    groups = await _get(client, '/apis')
    for group in groups.get('groups') or ():
        preferred = group.get('preferredVersion') or (group.get('versions') or [{}])[0]
        if preferred.get('groupVersion'):
            versions.append(str(preferred['groupVersion']))
    served: list[Served] = []
    failed: dict[str, str] = {}
    for version in versions:
        try:
            served += _read(version, await _get(client, f'/apis/{version}' if '/' in version else f'/api/{version}'))
        except ApiError as e:  # an aggregated server that is down must not hide the others
            failed[version] = str(e)
    return Discovery(tuple(served), failed)


def _read(version: str, body: Obj) -> list[Served]:
    group, _, short = version.rpartition('/')
    return [
        Served(
            Resource(group, short, str(r['name']), str(r['kind']), namespaced=bool(r.get('namespaced'))),
            frozenset(r.get('verbs') or ()),
        )
        for r in body.get('resources') or ()
        if '/' not in str(r['name'])
    ]


async def _get(client: Client, path: str) -> Obj:
    response = await client.request('GET', path)
    raw = await response.read()
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as e:
        raise Unavailable(failure(503, 'ServiceUnavailable', f'GET {path}: answer is not JSON: {e}')) from e
    if response.status >= 400:
        is_status = isinstance(body, dict) and body.get('kind') == 'Status'
        raise from_status(body if is_status else failure(response.status, '', f'GET {path} failed'))
    return dict(body)
