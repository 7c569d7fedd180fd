"""Upstream's conformance tests of kubectl that need no pods: real kubectl on the API server in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

conformance = pytest.mark.conformance
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: httpd-deployment}
spec:
  replicas: 1
  selector: {matchLabels: {app: httpd}}
  template:
    metadata: {labels: {app: httpd}}
    spec: {containers: [{name: httpd, image: 'httpd:1', ports: [{containerPort: 80}]}]}
"""


@conformance('Kubectl client Kubectl api-versions should check if v1 is in available api versions')
async def test_api_versions_name_v1(kubectl):
    assert 'v1' in (await kubectl('api-versions')).splitlines()


@conformance(
    'Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info'
)
async def test_cluster_info_names_the_control_plane(kubectl, world):
    said = await kubectl('cluster-info')
    assert 'Kubernetes control plane' in said
    assert world.base in said


@conformance('Kubectl client Kubectl version should check is all data is printed')
async def test_version_tells_both_sides(kubectl):
    said = await kubectl('version')
    assert 'Client Version: v' in said
    assert 'Server Version: v1.' in said
    as_json = await kubectl('version', '-o', 'json')
    for field in ('major', 'minor', 'gitVersion', 'gitCommit', 'gitTreeState', 'buildDate', 'goVersion', 'platform'):
        assert as_json.count(f'"{field}"') == 2


@conformance('Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments')
async def test_diff_shows_what_apply_would_change(kubectl):
    await kubectl('create', '-f', '-', stdin=DEPLOYMENT)
    assert await kubectl('diff', '-f', '-', stdin=DEPLOYMENT) == ''
    said = await kubectl('diff', '-f', '-', stdin=DEPLOYMENT.replace('httpd:1', 'httpd:2'), fails=True)
    lines = {line.strip() for line in said.splitlines()}
    assert any(line.startswith('-') and line.endswith('image: httpd:1') for line in lines)
    assert any(line.startswith('+') and line.endswith('image: httpd:2') for line in lines)


@contextlib.asynccontextmanager
async def proxying(kubectl: Any, *words: str) -> AsyncIterator[str]:
    """`kubectl proxy` as long as the block runs; what it says when it serves."""
    process = await kubectl.start('proxy', *words, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(60):
            yield (await process.stdout.readline()).decode()
    finally:
        process.terminate()
        await process.wait()


@conformance('Kubectl client Proxy server should support proxy with --port 0')
async def test_a_proxy_takes_a_port_of_its_own(kubectl):
    async with proxying(kubectl, '--port=0', '--disable-filter') as said:
        address = said.split()[-1]
        async with aiohttp.ClientSession() as session, session.get(f'http://{address}/api/') as reply:
            assert (await reply.json())['kind'] == 'APIVersions'


@conformance('Kubectl client Proxy server should support --unix-socket=/path')
async def test_a_proxy_listens_on_a_unix_socket(kubectl, tmp_path):
    path = str(tmp_path / 'test')
    async with proxying(kubectl, f'--unix-socket={path}') as said:
        assert path in said
        connector = aiohttp.UnixConnector(path)
        async with aiohttp.ClientSession(connector=connector) as session, session.get('http://localhost/api/') as reply:
            assert (await reply.json())['kind'] == 'APIVersions'
