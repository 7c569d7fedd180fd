"""How a machine becomes a node: a join token is exchanged for credentials of the node's own, which are then renewed.

The cluster describes itself in kube-public/cluster-info, readable without credentials and signed with the token: so the
token proves the cluster to the node before it proves the node to the cluster. With it the node asks for a client
certificate, with that for a serving one; later it renews both by themselves, when they grow old and when the cluster
has a new authority. Files of `<data-dir>/pki`, all replaced atomically: ca.crt; client.pem and serving.pem, each a
certificate and its key in one, so that no crash can part them; beside them the kubeconfig that names them.
Source: pkg/kubelet/certificate/bootstrap, kubeadm's token discovery.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import structlog
import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from kclient import certificates, kubeconfig
from kclient.api import Client
from kclient.certificates import NODE_CLIENT_SIGNER, NODE_SERVING_SIGNER, REQUESTS
from kclient.errors import ClientError
from kclient.kubeconfig import ClientConfig
from kcore.env import Env
from kcore.meta.gvk import CONFIGMAPS
from kcore.meta.jointoken import SIGNATURE, TOKEN, vouched

log = structlog.get_logger('knode.join')

ISSUED_WITHIN_S = 60.0
RENEW_AT = 0.7
"""Part of a certificate's life after which a new one is asked for; a random tenth is added."""
LOOK_S, LOOK_S_MIN, LOOKS_LEFT = 600.0, 1.0, 0.05
"""How often certificates and authority are looked at: after a twentieth of the time left, within these bounds."""


class JoinError(Exception):
    """One sentence for the person who wants to join."""


@dataclass(frozen=True, slots=True)
class Invitation:
    servers: tuple[str, ...]
    token: str


class Credentials:
    """Who this node is, on disk."""

    def __init__(self, env: Env, data_dir: Path, name: str, address: str) -> None:
        self._env = env
        self._name, self._address = name, address
        self._pki = data_dir / 'pki'
        self.kubeconfig = data_dir / 'kubeconfig'

    @property
    def authority(self) -> Path:
        return self._pki / 'ca.crt'

    def pair(self, what: str) -> tuple[Path, Path]:
        """Certificate and key: `client` or `serving`."""
        file = self._pki / f'{what}.pem'
        return file, file

    def good(self) -> bool:
        """Whether there are credentials that have not ended, so that no token is needed."""
        return self._env.disk.exists(self.kubeconfig) and all(
            self._left(w) > timedelta(0) for w in ('client', 'serving')
        )

    def _certificate(self, what: str) -> x509.Certificate:
        """Raises FileNotFoundError, ValueError."""
        return x509.load_pem_x509_certificate(self._env.disk.read(self.pair(what)[0]))

    def _left(self, what: str) -> timedelta:
        try:
            return self._certificate(what).not_valid_after_utc - self._env.clock.wall()
        except (FileNotFoundError, ValueError):
            return timedelta(0)

    async def join(self, invitation: Invitation) -> None:
        """Raises JoinError."""
        self._env.disk.mkdir(self._pki)
        content, authority = await self._discover(invitation)
        self._env.disk.replace(self.authority, authority, mode=0o644)
        servers = servers_of(content) or invitation.servers
        try:
            await self._client_certificate(ClientConfig(servers, authority, token=invitation.token))
            self._write_kubeconfig(servers)
            await self._serving_certificate()
        except ClientError as e:
            raise JoinError(f'the cluster gives no credentials: {e}') from e

    async def _discover(self, invitation: Invitation) -> tuple[str, bytes]:
        """The cluster's description and authority, if the token's holder has signed them. Raises JoinError."""
        if TOKEN.fullmatch(invitation.token) is None:
            raise JoinError('a token looks like abcdef.0123456789abcdef; `kctl token create` prints one')
        where = ', '.join(invitation.servers)
        # Nothing is sent but the question, and the answer is believed for its signature only.
        anonymous = ClientConfig(invitation.servers, insecure=True)
        async with Client(anonymous, self._env, user_agent='knode/join') as client:
            try:
                info = await client.get(CONFIGMAPS, 'cluster-info', 'kube-public')
            except ClientError as e:
                raise JoinError(f'{where} does not describe its cluster: {e}') from e
        data = info.get('data') or {}
        content = str(data.get('kubeconfig') or '')
        signature = str(data.get(f'{SIGNATURE}{invitation.token.partition(".")[0]}') or '')
        if not vouched(content, signature, invitation.token):
            raise JoinError(f'the cluster at {where} does not know this token (it may have expired), or is not yours')
        return content, authority_of(content)

    async def _client_certificate(self, config: ClientConfig) -> None:
        user = f'system:node:{self._name}'
        async with Client(config, self._env, user_agent=f'knode/{self._name}') as client:
            await self._obtain(client, 'client', user, NODE_CLIENT_SIGNER, ())

    async def _serving_certificate(self) -> None:
        user, config = f'system:node:{self._name}', kubeconfig.load(self.kubeconfig, self._env)
        async with Client(config, self._env, user_agent=f'knode/{self._name}') as client:
            await self._obtain(client, 'serving', user, NODE_SERVING_SIGNER, (self._name, self._address))

    async def _obtain(self, client: Client, what: str, user: str, signer: str, serves: Sequence[str]) -> None:
        """Raises ClientError, JoinError."""
        key = certificates.new_key()
        csr = await client.create(
            REQUESTS, certificates.request(key, user, ('system:nodes',), signer=signer, serves=serves)
        )
        name = csr['metadata']['name']
        try:
            async with asyncio.timeout(ISSUED_WITHIN_S):
                pem = await _issued(client, name)
        except TimeoutError as e:
            hint = f'`kubectl certificate approve {name}` does it by hand'
            raise JoinError(f'nobody approved and signed request {name} in {ISSUED_WITHIN_S:.0f} s; {hint}') from e
        except certificates.NotIssued as e:
            raise JoinError(f'the {what} certificate was not issued: {e}') from e
        self._env.disk.replace(self.pair(what)[0], certificates.key_pem(key) + pem)
        log.info('certificate obtained', what=what, node=self._name)

    def _write_kubeconfig(self, servers: Sequence[str]) -> None:
        names = ['cluster', *(f'cluster-{n}' for n in range(2, len(servers) + 1))]
        certificate, key = self.pair('client')
        document = {
            'apiVersion': 'v1', 'kind': 'Config', 'current-context': 'node',
            'clusters': [
                {'name': n, 'cluster': {'server': s, 'certificate-authority': str(self.authority)}}
                for n, s in zip(names, servers, strict=True)
            ],
            'contexts': [{'name': 'node', 'context': {'cluster': names[0], 'user': 'node'}}],
            'users': [{'name': 'node', 'user': {'client-certificate': str(certificate), 'client-key': str(key)}}],
        }  # fmt: skip
        self._env.disk.replace(self.kubeconfig, yaml.safe_dump(document, sort_keys=False).encode())

    async def keep(self) -> NoReturn:
        """Renew what grows old and follow the cluster's authority, for ever."""
        while True:
            try:
                await self.renew()
            except (ClientError, JoinError) as e:
                log.warning('credentials were not renewed', err=str(e))
            await asyncio.sleep(self.pause_s())

    def pause_s(self) -> float:
        """Until the next look: less while certificates that were not renewed come to their end."""
        left_s = min(self._left(w).total_seconds() for w in ('client', 'serving'))
        return min(LOOK_S, max(left_s * LOOKS_LEFT, LOOK_S_MIN))

    async def renew(self) -> None:
        """Ask for what is due. Raises ClientError, JoinError."""
        await self._follow_authority(kubeconfig.load(self.kubeconfig, self._env))
        if 'client' in self.due():
            await self._client_certificate(kubeconfig.load(self.kubeconfig, self._env))
        if 'serving' in self.due():
            await self._serving_certificate()

    def due(self) -> list[str]:
        """The certificates to be renewed."""
        return [what for what in ('client', 'serving') if self._due(what)]

    def _due(self, what: str) -> bool:
        """Old, or signed by an authority that is not the cluster's newest and may soon be believed no more."""
        certificate = self._certificate(what)
        newest = x509.load_pem_x509_certificate(self._env.disk.read(self.authority))
        try:
            certificate.verify_directly_issued_by(newest)
        except (ValueError, TypeError, InvalidSignature):
            return True
        lasts = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        passed = self._env.clock.wall() - certificate.not_valid_before_utc
        return passed > lasts * (RENEW_AT + 0.1 * self._env.rng.random())

    async def _follow_authority(self, config: ClientConfig) -> None:
        """Take over a rotated authority; the one that we trust so far vouches for it by the connection."""
        async with Client(ClientConfig(config.servers, config.ca_data), self._env, user_agent='knode/join') as client:
            info = await client.get(CONFIGMAPS, 'cluster-info', 'kube-public')
        authority = authority_of(str((info.get('data') or {}).get('kubeconfig') or ''))
        if authority != self._env.disk.read(self.authority):
            self._env.disk.replace(self.authority, authority, mode=0o644)
            log.info('the cluster has another authority now', node=self._name)


async def _issued(client: Client, name: str) -> bytes:
    """The certificate, once it is there. Raises NotIssued."""
    while True:
        page = await client.list(REQUESTS, field_selector=f'metadata.name={name}')
        for csr in page.items:
            if (pem := certificates.issued(csr)) is not None:
                return pem
        watch = client.watch(REQUESTS, field_selector=f'metadata.name={name}', resource_version=page.resource_version)
        async for event in watch:
            if event.type == 'MODIFIED' and (pem := certificates.issued(event.object)) is not None:
                return pem


def _clusters(content: str) -> list[dict[str, Any]]:
    try:
        return [c['cluster'] for c in yaml.safe_load(content)['clusters']]
    except (yaml.YAMLError, KeyError, TypeError) as e:
        raise JoinError(f'cluster-info holds no kubeconfig: {e}') from e


def servers_of(content: str) -> tuple[str, ...]:
    """Raises JoinError."""
    return tuple(str(c['server']) for c in _clusters(content) if c.get('server'))


def authority_of(content: str) -> bytes:
    """Raises JoinError."""
    clusters = _clusters(content)
    if not clusters or not clusters[0].get('certificate-authority-data'):
        raise JoinError('cluster-info names no certificate-authority')
    return base64.b64decode(clusters[0]['certificate-authority-data'])
