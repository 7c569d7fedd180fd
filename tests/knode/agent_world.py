"""One API server in memory and one node agent, as processes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from kclient import kubeconfig
from kclient.api import Client
from kclient.errors import ClientError
from kcore.env import Env
from kcore.meta.gvk import NODES
from kctl.local import pki

ROOT = Path(__file__).parents[2]
NODE = 'n1'
CIDR = '127.64.201.0/24'
START_S = 90.0


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return int(s.getsockname()[1])


class World:
    """One API server in memory and one node agent, as processes."""

    def __init__(self, root: Path, env: Env) -> None:
        self.root, self.env = root, env
        self.port, self.node_port = free_port(), free_port()
        (root / 'manifests').mkdir()
        authority = pki.Authority(root / 'pki', env)
        admin = ('system:masters',)
        authority.ensure(pki.Leaf('kapi', 'kube-apiserver', (), ('127.0.0.1', 'localhost')))
        authority.ensure(pki.Leaf('kubelet-client', 'kube-apiserver-kubelet-client', admin))
        self.write_kubeconfig(authority, pki.Leaf('admin', 'kubernetes-admin', admin))
        self.write_kubeconfig(authority, pki.Leaf('node', f'system:node:{NODE}', ('system:nodes',), ('127.0.0.1',)))
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.prefix: tuple[str, ...] = ()
        """A command that each process is started by."""

    def write_kubeconfig(self, authority: pki.Authority, leaf: pki.Leaf) -> None:
        cert, key = authority.ensure(leaf)
        server = f'https://127.0.0.1:{self.port}'
        data = pki.kubeconfig([server], authority.certificate_pem, cert.read_bytes(), key.read_bytes(), leaf.name)
        (self.root / f'{leaf.name}.conf').write_bytes(data)

    async def spawn(self, name: str, *argv: str) -> None:
        with (self.root / f'{name}.log').open('ab') as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *self.prefix, sys.executable, '-m', *argv, stdout=log, stderr=log, cwd=ROOT
            )

    async def start_api(self) -> None:
        certs = self.root / 'pki'
        await self.spawn(
            'kapi', 'kapi', '--listen', f'127.0.0.1:{self.port}', '--storage', 'memory://',
            '--tls-cert', f'{certs}/kapi.crt', '--tls-key', f'{certs}/kapi.key', '--client-ca', f'{certs}/ca.crt',
            '--kubelet-client-cert', f'{certs}/kubelet-client.crt',
            '--kubelet-client-key', f'{certs}/kubelet-client.key',
        )  # fmt: skip

    async def start_agent(self, *more: str) -> None:
        certs = self.root / 'pki'
        await self.spawn(
            'knode', 'knode', '--name', NODE, '--kubeconfig', f'{self.root}/node.conf', '--data-dir', f'{self.root}/n1',
            '--listen', f'127.0.0.1:{self.node_port}', '--tls-cert', f'{certs}/node.crt',
            '--tls-key', f'{certs}/node.key', '--client-ca', f'{certs}/ca.crt',
            '--pod-manifest-path', f'{self.root}/manifests', *more,
        )  # fmt: skip

    async def kill(self, name: str) -> None:
        self.processes[name].kill()
        await self.processes[name].wait()

    async def close(self) -> None:
        for name, process in self.processes.items():
            if process.returncode is None:
                await self.kill(name)


@contextlib.asynccontextmanager
async def connected(world: World) -> AsyncIterator[Client]:
    """An administrator's client, once the API answers; the node then has its addresses."""
    config = kubeconfig.load(world.root / 'admin.conf', world.env)
    async with Client(config, world.env, user_agent='test') as client:
        async with asyncio.timeout(START_S):
            while True:
                try:
                    await client.patch(NODES, NODE, {'spec': {'podCIDR': CIDR, 'podCIDRs': [CIDR]}})
                    break
                except ClientError:
                    await asyncio.sleep(0.1)
        yield client


def pod(name: str, *command: str, **spec: Any) -> dict[str, Any]:
    container = {'name': 'c', 'image': 'busybox', 'command': list(command)}
    return {
        'metadata': {'name': name, 'namespace': 'default'},
        'spec': {
            'nodeName': NODE,
            'terminationGracePeriodSeconds': 1,
            'automountServiceAccountToken': False,
            'containers': [container],
            **spec,
        },
    }
