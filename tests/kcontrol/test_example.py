"""The example outside the tree does what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from kcore.meta.gvk import CONFIGMAPS, NAMESPACES
from kcore.meta.objects import namespace_of

FILE = Path(__file__).parents[2] / 'examples' / 'controller' / 'replicated_config.py'


@pytest.mark.parametrize('config_of', ['kapi'], indirect=True)
async def test_the_example_copies_updates_and_removes(admin, env, background, until):
    spec = importlib.util.spec_from_file_location('replicated_config', FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    background(module.Replicator(admin, env).run())
    meta = {'name': 'shared', 'namespace': 'default', 'labels': {module.REPLICATE: 'true'}}
    await admin.create(CONFIGMAPS, {'metadata': meta, 'data': {'a': '1'}})
    await admin.create(NAMESPACES, {'metadata': {'name': 'team'}})

    async def copies(data: dict | None) -> bool:
        found = [m for m in (await admin.list(CONFIGMAPS)).items if m['metadata']['name'] == 'shared']
        others = {namespace_of(m): m.get('data') for m in found if namespace_of(m) != 'default'}
        return others.get('team') == data

    await until(lambda: copies({'a': '1'}))
    await admin.patch(CONFIGMAPS, 'shared', {'data': {'a': None, 'b': '2'}}, 'default')
    await until(lambda: copies({'b': '2'}))
    await admin.delete(CONFIGMAPS, 'shared', 'default')
    await until(lambda: copies(None))
