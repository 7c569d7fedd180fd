"""What docs/adding-a.md tells a user to type works: a controller of one file, from an empty directory."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kclient.api import Client
from kclient.kubeconfig import load
from kcore.env import Env
from kcore.meta.gvk import CONFIGMAPS
from tests.e2e.conftest import ROOT, LocalCluster

pytestmark = pytest.mark.e2e
NAME = 'shared'


def commands(cluster: LocalCluster) -> str:
    """The lines of the document, with its placeholders filled in."""
    text = (ROOT / 'docs' / 'adding-a.md').read_text().partition('## Outside the tree')[2]
    lines = re.findall(r'```sh\n(.*?)```', text, re.DOTALL)[0]
    filled: str = lines.replace('<kubeling>/.venv/bin/python', f'exec {sys.executable}')
    return filled.replace('<kubeling>', str(ROOT)).replace('<data>', str(cluster.data))


async def told(cluster: LocalCluster, namespace: str) -> str:
    """Waits for the copy in `namespace`; its data's value."""
    env = Env.real()
    async with Client(load(cluster.data / 'kubeconfig', env), env, user_agent='test') as client, asyncio.timeout(60):
        async for event in client.watch(CONFIGMAPS, namespace):
            if event.type in ('ADDED', 'MODIFIED') and event.object['metadata']['name'] == NAME:
                return str(event.object['data']['a'])
    raise AssertionError('the watch ended without a copy')


def test_the_example_is_typed_as_the_document_says_and_copies_into_every_namespace(
    cluster: LocalCluster, namespace: str, tmp_path: Path
):
    shell = ['bash', '-ec', commands(cluster)]
    with subprocess.Popen(shell, cwd=tmp_path, env={'PATH': '/usr/bin:/bin'}, stderr=subprocess.PIPE) as running:
        try:
            meta = {'name': NAME, 'namespace': 'default', 'labels': {'example.com/replicate': 'true'}}
            original = {'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': meta, 'data': {'a': '1'}}
            cluster.kctl('create', '-f', '-', stdin=json.dumps(original))
            assert asyncio.run(told(cluster, namespace)) == '1'
            assert running.poll() is None, running.stderr and running.stderr.read()
        finally:
            running.terminate()
            cluster.kctl('delete', 'configmap', NAME, '--namespace', 'default', check=False)
