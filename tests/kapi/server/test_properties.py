"""What holds for any sequence of writes and for every kind: versions, the two halves of an object, patches, storage."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import jsonpatch
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapi.kinds import GOVERNING, KINDS
from kapi.schemas import conform, parse_json, schema_for
from kapi.storage.codec import encode
from kcore.meta.fields import Manager, apply
from kcore.meta.fieldsets import leaves
from kcore.meta.patch import strategic_merge_patch
from kcore.meta.schema import Node
from tests.kapi.objects import full_of, value_of
from tests.kcore.meta.test_fields import NOW

Obj = dict[str, Any]
CM = '/api/v1/namespaces/default/configmaps'
EXAMPLES = 15

# — versions —

_NAMES = st.sampled_from(('a', 'b', 'c'))
_DATA = st.dictionaries(st.sampled_from(('x', 'y')), st.sampled_from(('1', '2')), max_size=2)
_STEPS = st.lists(
    st.tuples(st.sampled_from(('post', 'put', 'merge-patch', 'apply-patch', 'delete', 'dry')), _NAMES, _DATA),
    max_size=12,
)


async def _write(api: Any, verb: str, name: str, data: Obj) -> Any:
    body = {'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': name}, 'data': data}
    match verb:
        case 'post':
            return await api.post(CM, body)
        case 'put':
            return await api.put(f'{CM}/{name}', body)
        case 'delete':
            return await api.delete(f'{CM}/{name}')
        case 'dry':
            return await api.patch(f'{CM}/{name}?dryRun=All', {'data': {'dry': 'yes'}})
        case _:
            force = '&force=true' if verb == 'apply-patch' else ''
            return await api.patch(f'{CM}/{name}?fieldManager=m{force}', body, verb)


@settings(max_examples=EXAMPLES, derandomize=True)
@given(steps=_STEPS)
async def test_versions_only_rise_and_a_watch_sees_each_change_once(api, steps):
    start = (await api.get(CM)).json
    for item in start['items']:
        await api.delete(f'{CM}/{item["metadata"]["name"]}')
    start = await api.get(CM)
    last = int(start.json['metadata']['resourceVersion'])
    live: dict[str, tuple[int, Obj]] = {}
    changes: list[int] = []
    for verb, name, data in steps:
        reply = await _write(api, verb, name, data)
        if reply.status >= 400 or verb == 'dry':
            continue
        if verb == 'delete':
            live.pop(name)
            continue
        version, held = int(reply.json['metadata']['resourceVersion']), reply.json.get('data') or {}
        if name in live and live[name][0] == version:
            assert held == live[name][1], 'a version stands for one content'
        else:
            assert version > last
            changes.append(version)
        last = max(last, version)
        live[name] = (version, held)
    seen = await _watched(api, start.json['metadata']['resourceVersion'])
    versions = [v for _, v, _ in seen]
    assert versions == sorted(set(versions))
    assert [v for kind, v, _ in seen if kind != 'DELETED'] == changes
    listed = {i['metadata']['name']: i.get('data') or {} for i in (await api.get(CM)).json['items']}
    assert listed == {name: data for name, (_, data) in live.items()}


async def _watched(api: Any, version: str) -> list[tuple[str, int, str]]:
    """(type, version, name) of each change since `version`, up to a marker written now."""
    await api.post(CM, {'metadata': {'name': 'marker'}})
    seen = []
    async with api.watch(f'{CM}?watch=true&resourceVersion={version}') as event:
        while True:
            found = await event()
            meta = found['object']['metadata']
            if meta['name'] == 'marker':
                await api.delete(f'{CM}/marker')
                return seen
            seen.append((found['type'], int(meta['resourceVersion']), meta['name']))


# — spec and status —

STORED = [k for k in (*KINDS, *GOVERNING) if k.alias is None]
WITH_STATUS = [k for k in STORED if k.has_status]


def _path(kind: Any, name: str = '') -> str:
    base = kind.resource.path('default') if kind.resource.namespaced else kind.resource.path()
    return f'{base}/{name}' if name else base


async def _held(server: Any, kind: Any, obj: Obj) -> str:
    """Put an object into storage past the rules, which few random objects would survive; its key."""
    key = server.registry.key(kind, 'default' if kind.resource.namespaced else '', obj['metadata']['name'])
    await server.cache.create(key, encode(obj))
    return key


def _object(kind: Any, value: Obj) -> Obj:
    """`value` as an object of the kind that is not about to go, and belongs to nobody."""
    r = kind.resource
    place = {'name': 'x', 'uid': 'u', 'creationTimestamp': '2026-01-01T00:00:00Z'}
    if r.namespaced:
        place['namespace'] = 'default'
    return {**value, 'apiVersion': r.api_version, 'kind': r.kind, 'metadata': place}


async def test_a_status_write_never_alters_spec_nor_a_spec_write_status(api, world):
    rng, taken = random.Random(1), set()
    for kind in WITH_STATUS:
        schema, path = schema_for(kind.resource), _path(kind, 'x')
        obj = conform(_object(kind, full_of(schema.root)), schema)[0]
        kind.strategy.default(obj)  # drops fields, too: a write that did so later would seem to alter the spec
        key = await _held(world.server, kind, obj)
        for _ in range(3):
            before = (await api.get(path)).json
            other = value_of(schema.root, rng)
            changed = {**before, 'spec': other.get('spec', {}), 'status': other.get('status', {})}
            written = await api.put(f'{path}/status', changed)
            if written.status == 200:
                taken.add(path)
                assert written.json['metadata']['uid'] == before['metadata']['uid'], path
            await api.patch(f'{path}/status', {'spec': None, 'status': {}})
            now = (await api.get(path)).json
            assert now.get('spec') == before.get('spec'), path
            await api.patch(path, {'status': other.get('status'), 'metadata': {'labels': {'a': 'b'}}})
            assert (await api.get(path)).json.get('status') == now.get('status'), path
        await world.server.cache.delete(key)
    assert len(taken) > len(WITH_STATUS) / 2, 'the writes must be taken for this to mean anything'


# — patches —

_VALUES = st.recursive(
    st.sampled_from(('a', 'b', '')),
    lambda inner: st.dictionaries(st.sampled_from('pqr'), inner, max_size=3),
    max_leaves=6,
)
_MAPS = st.dictionaries(st.sampled_from(('k1', 'k2', 'k3')), st.sampled_from(('a', 'b', 'c')), max_size=3)


def _difference(old: Any, new: Any) -> Obj:
    """The merge patch from one map to another."""
    return {k: None for k in old if k not in new} | {k: v for k, v in new.items() if old.get(k) != v}


@settings(max_examples=EXAMPLES, derandomize=True)
@given(old=_MAPS, new=_MAPS, form=st.sampled_from(('merge-patch', 'json-patch', 'strategic-merge-patch')))
async def test_a_patch_and_its_inverse_leave_the_object_as_it_was(api, old, new, form):
    body = {'metadata': {'name': 'p', 'labels': old, 'annotations': old}, 'data': old}
    await api.delete(f'{CM}/p')
    before = _essence((await api.post(CM, body)).json)
    target = {**before, 'data': new, 'metadata': {**before['metadata'], 'labels': new, 'annotations': new}}
    if form == 'json-patch':
        there, back = (jsonpatch.make_patch(a, b).patch for a, b in ((before, target), (target, before)))
        if not any(old.values()) or not new:
            return  # an empty map is left out by the server, so the path of the inverse is gone
    else:
        there, back = (
            {'data': _difference(a, b), 'metadata': {'labels': _difference(a, b), 'annotations': _difference(a, b)}}
            for a, b in ((old, new), (new, old))
        )
    changed = await api.patch(f'{CM}/p', there, form)
    assert changed.status == 200, changed.text
    assert (changed.json.get('data') or {}) == new
    undone = await api.patch(f'{CM}/p', back, form)
    assert undone.status == 200, undone.text
    assert _essence(undone.json) == before


def _essence(obj: Obj) -> Obj:
    metadata = {k: v for k, v in obj['metadata'].items() if k not in {'resourceVersion', 'managedFields'}}
    return {**obj, 'metadata': metadata}


def _merged(old: Any, change: Any, node: Node) -> Any:
    """Strategic merge, slowly: lists with a merge key become maps, and everything is RFC 7386 then."""
    if isinstance(change, dict):
        base = old if isinstance(old, dict) else {}
        out = {k: v for k, v in base.items() if k not in change}
        for key, value in change.items():
            if value is not None:
                out[key] = _merged(base.get(key), value, node.child(key) or Node('any'))
        return out
    if isinstance(change, list) and node.merge_key and 'merge' in node.strategies and node.items is not None:
        items = {i[node.merge_key]: i for i in old or ()}
        for item in change:
            items[item[node.merge_key]] = _merged(items.get(item[node.merge_key]), item, node.items)
        return list(items.values())
    if isinstance(change, list) and 'merge' in node.strategies and node.items is not None:
        return [*(old or ()), *(v for v in change if v not in (old or ()))]
    return change


def _keyed(value: Any, node: Node, rng: random.Random, key: str = 'merge_key') -> Any:
    """`value` with items of keyed lists told apart, as merging demands."""
    if isinstance(value, dict):
        return {k: _keyed(v, node.child(k) or Node('any'), rng, key) for k, v in value.items()}
    if isinstance(value, list) and node.items is not None:
        keys = node.keys if key == 'keys' else (node.merge_key,) if node.merge_key else ()
        found = {}
        for item in value:
            made = _keyed(item, node.items, rng, key)
            if keys and isinstance(made, dict):
                for k in keys:
                    scalar = node.items.fields[k].type
                    made[k] = rng.choice((1, 2, 3)) if scalar.startswith('int') else rng.choice(('a', 'b', 'c'))
            found[orjson.dumps([made[k] for k in keys] if keys and isinstance(made, dict) else made)] = made
        return list(found.values())
    return value


def _comparable(value: Any) -> Any:
    """Without the order of lists, which merging is free to choose."""
    if isinstance(value, dict):
        return {k: _comparable(v) for k, v in value.items()}
    return sorted(json.dumps(_comparable(v), sort_keys=True) for v in value) if isinstance(value, list) else value


MERGED = [
    k for k in KINDS if k.resource.plural in {'pods', 'services', 'deployments', 'ingresses', 'persistentvolumes'}
]


@pytest.mark.parametrize('kind', MERGED, ids=lambda k: str(k.resource))
def test_strategic_merge_agrees_with_a_slow_reference(kind):
    rng, root = random.Random(7), schema_for(kind.resource).root
    for _ in range(150):
        old, change = (_keyed(value_of(root, rng), root, rng) for _ in range(2))
        held = copy.deepcopy(old)
        assert _comparable(strategic_merge_patch(old, change, root)) == _comparable(_merged(held, change, root))
        assert old == held


@pytest.mark.parametrize('kind', MERGED, ids=lambda k: str(k.resource))
def test_an_apply_leaves_just_what_it_says_of_what_it_owned(kind):
    rng, root = random.Random(7), schema_for(kind.resource).root
    who = Manager('m', 'Apply', kind.resource.api_version)
    for _ in range(100):
        first, second = (_applied(_keyed(value_of(root, rng), root, rng, 'keys')) for _ in range(2))
        live = apply(None, first, root, who, NOW).merged
        now = apply(live, second, root, who, NOW).merged
        assert _said(now, root) == _said(second, root)


def _applied(obj: Obj) -> Obj:
    """What one applies: a name, and neither status nor what the server sets."""
    kept = {k: v for k, v in (obj.get('metadata') or {}).items() if k in {'labels', 'annotations', 'finalizers'}}
    own = {k: v for k, v in obj.items() if k not in {'apiVersion', 'kind', 'status'}}
    return {**own, 'metadata': {**kept, 'name': 'x'}}


def _said(obj: Obj, root: Node) -> Any:
    metadata = {k: v for k, v in obj['metadata'].items() if k != 'managedFields'}
    return {path: value for path, value in leaves({**obj, 'metadata': metadata}, root).items() if value not in ({}, [])}


# — storage —


async def test_an_object_with_every_field_set_is_read_as_it_was_written(api, world):
    for kind in STORED:
        whole = _whole(kind)
        fit, warnings = conform(parse_json(orjson.dumps(whole)), schema_for(kind.resource), 'Strict')
        assert (fit, warnings) == (whole, [])
        key, path = await _held(world.server, kind, fit), _path(kind, 'x')
        read = (await api.get(path)).json
        [listed] = [i for i in (await api.get(_path(kind))).json['items'] if i['metadata']['name'] == 'x']
        async with api.watch(f'{_path(kind)}?watch=true&fieldSelector=metadata.name%3Dx') as event:
            watched = (await event())['object']
        await world.server.cache.delete(key)
        version = read['metadata'].pop('resourceVersion')
        assert orjson.dumps(read, option=orjson.OPT_SORT_KEYS) == orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)
        for other in (listed, watched):
            assert other['metadata'].pop('resourceVersion') == version
            assert other == whole, path


def _whole(kind: Any) -> Obj:
    """An object with every field set, but for the two that are never stored."""
    value = full_of(schema_for(kind.resource).root)
    whole = _object(kind, value)
    more = {k: v for k, v in value['metadata'].items() if k not in {'resourceVersion', 'selfLink', 'namespace'}}
    whole['metadata'] = {**more, **whole['metadata']}
    return whole
