"""What a user may write comes back, for each kind, through the whole server: rules, JSON and protobuf, status."""

from __future__ import annotations

import copy
import random
from typing import Any

import orjson
import pytest

from kapi.kinds import GOVERNING, KINDS
from kapi.schemas import schema_for
from kapi.schemas.protobuf import ProtobufError
from tests.kapi import protobuf
from tests.kapi.acceptable import LEAVE_OUT, accepted, filled

Obj = dict[str, Any]
STORED = [k for k in (*KINDS, *GOVERNING) if k.resource.plural != 'customresourcedefinitions']
"""A definition's schema is a language of its own; tests/kapi/crd have it."""
WITHOUT_PROTOBUF = {'apiservices', 'mutatingadmissionpolicies', 'mutatingadmissionpolicybindings'}
"""No client writes these so."""
TURNS = 6
TURNS_OF = {'persistentvolumes': 22}
"""A union of 22 members, one at a time."""
NAMES = {'apiservices': 'web.web'}
"""Where a name says what the object says."""
UNKEPT = {
    '.spec.sessionAffinityConfig': 'defaulted away without affinity',
    '.stringData': 'becomes data',
    '.data.a': 'stringData wins',
    '.spec.extra': 'says who asks', '.spec.groups': 'says who asks', '.spec.uid': 'says who asks',
    '.spec.username': 'says who asks',
}  # fmt: skip
SEEN_LEAST = 0.8
"""Share of all fields that come back in some turn; the rest are what only some values of others allow."""

UNKEPT_ANYWHERE = {'claims', 'resourceClaims'}
"""Fields of a feature that is off: dropped on the way in."""


@pytest.fixture
async def furnished(api):
    """What pods refer to."""
    runtime = {'metadata': {'name': 'runtime'}, 'handler': 'process', 'overhead': {'podFixed': {'a': '100m'}}}
    await api.post('/apis/node.k8s.io/v1/runtimeclasses', runtime)
    await api.post('/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 'default'}})
    return api


@pytest.mark.parametrize('kind', STORED, ids=lambda k: f'{k.resource}')
async def test_what_may_be_written_comes_back(furnished, kind):
    api, root = furnished, schema_for(kind.resource).root
    seen, known = set(), set()
    for turn in range(TURNS_OF.get(kind.resource.plural, TURNS)):
        rng = random.Random(turn)
        whole = _object(kind, filled(root, rng, LEAVE_OUT if turn else 0))
        known |= set(_paths(whole))
        taken = await _written(api, kind, copy.deepcopy(whole), rng)
        seen |= set(_paths(taken))
        if kind.has_status:
            await _status_written(api, kind, whole.get('status') or {}, rng)
        await _gone(api, kind)
    missing = {p for p in known - seen if p[0] != 'status' and not _unwritable(kind, p)}
    assert len(missing) <= max(2, len(known) * (1 - SEEN_LEAST)), sorted(missing)


def _unwritable(kind: Any, path: tuple[str, ...]) -> bool:
    """Ephemeral containers come by their own subresource, and have neither ports nor probes nor hooks."""
    return 'ephemeralContainers' in path


def _object(kind: Any, value: Obj) -> Obj:
    r = kind.resource
    meta = {'name': NAMES.get(r.plural, 'x'), 'labels': {'a': 'web'}, 'annotations': {'a': 'web'}}
    if r.plural == 'apiservices':
        value = {**value, 'spec': {**(value.get('spec') or {}), 'group': 'web', 'version': 'web'}}
    if r.plural == 'persistentvolumeclaims':
        sizes = {'requests': {'storage': '1Gi'}, 'limits': {'storage': '2Gi'}}
        value = {**value, 'spec': {**(value.get('spec') or {}), 'resources': sizes}}
    for claim in (value.get('spec') or {}).get('volumeClaimTemplates') or ():
        claim |= {'apiVersion': 'v1', 'kind': 'PersistentVolumeClaim'}
    return {**value, 'apiVersion': r.api_version, 'kind': r.kind, 'metadata': meta}


def _path(kind: Any, sub: str | None = None) -> str:
    """Of the collection; of the object's own path with `sub` below it."""
    base = kind.resource.path('default') if kind.resource.namespaced else kind.resource.path()
    return base if sub is None else f'{base}/{NAMES.get(kind.resource.plural, "x")}{sub}'


async def _written(api: Any, kind: Any, obj: Obj, rng: random.Random) -> Obj:
    """Create, read, write again as JSON and as protobuf; what was taken."""
    made, path, root = _path(kind), _path(kind, ''), schema_for(kind.resource).root
    taken, reply = await accepted(lambda o: api.post(f'{made}?fieldValidation=Strict', o), obj, root, rng)
    read = (await api.get(f'{path}')).json
    assert read == reply.json
    ignored = {'status'} if kind.has_status and not kind.strategy.status_on_create else set()
    _within({k: v for k, v in taken.items() if k not in ignored}, read)
    again = (await api.put(f'{path}?fieldValidation=Strict', read)).json
    assert again == read, 'writing what was read changes nothing'
    try:
        body = protobuf.encode(read)
    except ProtobufError:
        assert kind.resource.plural in WITHOUT_PROTOBUF
        return taken
    media = 'application/vnd.kubernetes.protobuf'
    reply = await api.put(f'{path}?fieldValidation=Strict', body, content_type=media)
    assert reply.status == 200, reply.json
    _within(read, reply.json)
    assert reply.json == read, 'nor as protobuf'
    return taken


async def _status_written(api: Any, kind: Any, status: Obj, rng: random.Random) -> None:
    path = _path(kind, '/status')
    read = (await api.get(path)).json
    root = schema_for(kind.resource).root
    taken, reply = await accepted(lambda o: api.put(f'{path}?fieldValidation=Strict', o),
                                  {**read, 'status': copy.deepcopy(status)}, root, rng)  # fmt: skip
    _within({'status': taken['status']}, reply.json)
    assert (await api.get(path)).json == reply.json


async def _gone(api: Any, kind: Any) -> None:
    path = _path(kind, '')
    await api.delete(f'{path}?gracePeriodSeconds=0')
    if (await api.get(path)).status == 200:
        await api.patch(path, {'metadata': {'finalizers': None}})
    if kind.resource.plural == 'namespaces':
        await api.put(f'{path}/finalize', {**(await api.get(path)).json, 'spec': {'finalizers': []}})
    assert (await api.get(path)).status == 404, path


def _within(sent: Any, read: Any, where: str = '') -> None:
    """All that was sent is there, bit for bit; the server may have added defaults."""
    if isinstance(sent, dict) and isinstance(read, dict):
        for key, value in sent.items():
            if f'{where}.{key}' in UNKEPT or key in UNKEPT_ANYWHERE:
                continue
            assert key in read or value in ({}, []), f'{where}.{key} is lost: {orjson.dumps(value).decode()}'
            _within(value, read.get(key, value), f'{where}.{key}')
    elif isinstance(sent, list) and isinstance(read, list):
        assert len(read) >= len(sent), where
        for index, value in enumerate(sent):
            _within(value, read[index], f'{where}[{index}]')
    else:
        assert sent == read, where


def _paths(value: Any, path: tuple[str, ...] = ()) -> Any:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _paths(inner, (*path, key))
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _paths(inner, (*path, '[]'))
    else:
        yield path
