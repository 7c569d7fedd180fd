"""Which processes make up a local cluster, and with which flags each of them runs.

A component is named by its flags alone: `python -m <package> <flags>` starts the very same thing by hand.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode

from kcore import process
from kcore.config import Config
from kcore.env import Env
from kcore.tls import Identity
from kctl.local.layout import DNS_PORT, HEALTHZ_PORT, LOCALHOST, Layout, Role, join
from kctl.local.pki import Authority, Leaf, kubeconfig

SYSTEM_MASTERS = 'system:masters'
ADMIN = Leaf('admin', 'kubernetes-admin', (SYSTEM_MASTERS,))
MANAGER = Leaf('controller-manager', 'system:kube-controller-manager')
SCHEDULER = Leaf('scheduler', 'system:kube-scheduler')
KUBELET_CLIENT = Leaf('kube-apiserver-kubelet-client', 'kube-apiserver-kubelet-client', (SYSTEM_MASTERS,))
FRONT_PROXY = Leaf('front-proxy-client', 'front-proxy-client')
TOKEN_KEY = 'sa'  # noqa: S105 — a name
"""Name of the key file of service account tokens."""
SECRET_KEYS = 'encryption.keys'  # noqa: S105 — a name
"""Name of the file of keys that seal Secrets at rest."""
STORE_CLIENT = Leaf('kube-apiserver-store-client', 'kube-apiserver-store-client')


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a package's component lives: `run` in one module, its settings in another."""

    package: str
    run: str
    config: str

    def load(self) -> tuple[process.Run[Config], type[Config]]:
        module = importlib.import_module(self.run)
        settings, _, name = self.config.partition(':')
        return module.run, getattr(importlib.import_module(settings), name)


ENTRIES: dict[Role, Entry] = {
    'store': Entry('kstore', 'kstore.server', 'kstore.config:StoreConfig'),
    'api': Entry('kapi', 'kapi.app', 'kapi.config:ApiConfig'),
    'manager': Entry('kcontrol', 'kcontrol.manager', 'kcontrol.config:ControlConfig'),
    'node': Entry('knode', 'knode.agent', 'knode.config:NodeConfig'),
}
SHUTDOWN_GRACE_S = 5.0
"""What pods of a machine get when it is stopped; with the agent's last words less than the supervisor's own grace."""
STOP_ORDER: tuple[Role, ...] = ('manager', 'node', 'api', 'store')
"""Who acts stops before who is acted upon."""


@dataclass(frozen=True, slots=True)
class Component:
    name: str
    role: Role
    number: int
    flags: tuple[str, ...]

    @property
    def command(self) -> str:
        return f'python -m {ENTRIES[self.role].package} {" ".join(self.flags)}'


def name_of(role: Role, n: int) -> str:
    return f'{role}-{n}'


class Plan:
    """Makes the certificates and kubeconfigs of a layout and the components' flags."""

    def __init__(self, layout: Layout, env: Env) -> None:
        self._layout = layout
        self._env = env
        self._authority = Authority(layout.pki, env)
        self._ca = str(layout.pki / 'ca.crt')
        self._front_proxy = Authority(layout.pki, env, name='front-proxy-ca', common_name='front-proxy-ca')
        # An authority of its own: the cluster's signs people and nodes, and none of them may speak to the store.
        self._store_authority = Authority(layout.pki, env, name='store-ca', common_name='store-ca')
        self._anew = False

    def prepare(self) -> None:
        """Everything on disk that the components will read."""
        for folder in ('logs', 'run'):
            self._env.disk.mkdir(self._layout.data / folder)
        self._write_kubeconfig(ADMIN, people=True)
        for n in range(1, self._layout.nodes + 1):
            self._env.disk.mkdir(self._layout.manifests(n))
        for leaf in (MANAGER, SCHEDULER, *(self._node(n) for n in range(1, self._layout.nodes + 1))):
            self._write_kubeconfig(leaf)
        for leaf in (KUBELET_CLIENT, *(self._api(n) for n in range(1, self._layout.apis + 1))):
            self._ensure(self._authority, leaf)
        self._ensure(self._front_proxy, FRONT_PROXY)
        for leaf in (STORE_CLIENT, *(self._store(n) for n in range(1, self._layout.stores + 1))):
            self._ensure(self._store_authority, leaf)

    def rotate(self, *, authorities: bool) -> None:
        """New keys and certificates for everybody, with `authorities` also for those who sign; processes notice."""
        if authorities:
            self._authority = self._authority.rotate()
            self._front_proxy = self._front_proxy.rotate()
            self._store_authority = self._store_authority.rotate()
        self._authority.renew_signing_key(TOKEN_KEY)
        self._authority.renew_secret_keys(SECRET_KEYS)
        self._anew = True
        try:
            self.prepare()
        finally:
            self._anew = False

    def forget_old(self) -> None:
        """Believe no authority and no token key but the newest. Certificates they signed, wherever, are worthless."""
        self._authority = self._authority.forget()
        self._front_proxy = self._front_proxy.forget()
        self._store_authority = self._store_authority.forget()
        self._authority.forget_signing_keys(TOKEN_KEY)
        self.prepare()

    def _ensure(self, authority: Authority, leaf: Leaf) -> tuple[Path, Path]:
        return authority.ensure(leaf, anew=self._anew)

    def store_identity(self) -> Identity:
        """How `kctl` itself speaks to the store's members. Raises BadCertificate."""
        return Identity(self._env, self._store_authority.ensure(STORE_CLIENT), (self._store_authority.file,))

    def components(self, machine: int | None = None) -> list[Component]:
        """All of them, or those of one machine of a three-terminal cluster."""
        shape: Iterable[tuple[Role, int]] = (
            ('store', self._layout.stores),
            ('api', self._layout.apis),
            ('manager', self._layout.managers),
            ('node', self._layout.nodes),
        )
        wanted = [(role, n) for role, count in shape for n in range(1, count + 1) if machine in (None, n)]
        # A machine of several that stops says so, and the others replace its pods at once; of a whole cluster that
        # stops nobody is left to replace anything.
        more = {} if machine is None else {'node': ('--shutdown-grace-period-s', f'{SHUTDOWN_GRACE_S:g}')}
        return [Component(name_of(r, n), r, n, (*self._flags(r, n), *more.get(r, ()))) for r, n in wanted]

    def again(self, component: Component) -> Component:
        """A store member with the flags that this plan has for it; anything else as it is."""
        if component.role != 'store':
            return component
        return replace(component, flags=self._flags('store', component.number))

    def _flags(self, role: Role, n: int) -> tuple[str, ...]:
        """A flag without a value has an empty one."""
        match role:
            case 'store':
                flags = self._store_flags(n)
            case 'api':
                flags = self._api_flags(n)
            case 'manager':
                flags = self._manager_flags(n)
            case 'node':
                flags = self._node_flags(n)
        return tuple(part for flag, value in flags.items() for part in (f'--{flag}', value) if part)

    def _store_flags(self, n: int) -> dict[str, str]:
        lay = self._layout
        certificate, key = self._store_authority.ensure(self._store(n))
        peers = (f'{lay.member(i)}={join(lay.address("store", i))}' for i in range(1, lay.stores + 1))
        replacement = {} if lay.member(n) == n else {'join': ''}
        return {
            'id': str(lay.member(n)),
            'data-dir': str(lay.store_data(n)),
            'listen': join(lay.address('store', n)),
            'peers': ','.join(peers),
            'http': join(lay.store_http(n)),
            'tls-cert': str(certificate),
            'tls-key': str(key),
            'tls-ca': str(self._store_authority.file),
            **replacement,
        }

    def _api_flags(self, n: int) -> dict[str, str]:
        lay = self._layout
        members = (join(lay.address('store', i)) for i in range(1, lay.stores + 1))
        certificate, key = self._authority.ensure(self._api(n))
        store_certificate, store_key = self._store_authority.ensure(STORE_CLIENT)
        credentials = {'ca': self._store_authority.file, 'cert': store_certificate, 'key': store_key}
        kubelet_certificate, kubelet_key = self._authority.ensure(KUBELET_CLIENT)
        return {
            'listen': join(lay.address('api', n)),
            'storage': f'kstore://{",".join(members)}?{urlencode(credentials)}',
            'tls-cert': str(certificate),
            'tls-key': str(key),
            'client-ca': self._ca,
            'kubelet-client-cert': str(kubelet_certificate),
            'kubelet-client-key': str(kubelet_key),
            'kubelet-ca': self._ca,
            'service-account-signing-key-file': str(self._authority.signing_key(TOKEN_KEY)),
            'encryption-key-file': str(self._authority.secret_keys(SECRET_KEYS)),
            'requestheader-client-ca-file': str(self._front_proxy.file),
            'requestheader-allowed-names': FRONT_PROXY.user,
            'service-cidr': lay.service_cidr,
        }

    def _manager_flags(self, n: int) -> dict[str, str]:
        lay = self._layout
        return {
            'kubeconfig': str(lay.pki / f'{MANAGER.name}.kubeconfig'),
            'scheduler-kubeconfig': str(lay.pki / f'{SCHEDULER.name}.kubeconfig'),
            'identity': name_of('manager', n),
            'http': join(lay.address('manager', n)),
            'cluster-cidr': lay.cluster_cidr,
            'cluster-dns': lay.cluster_dns,
            'cluster-signing-cert-file': self._ca,
            'cluster-signing-key-file': str(lay.pki / 'ca.key'),
        }

    def _node_flags(self, n: int) -> dict[str, str]:
        lay, name = self._layout, name_of('node', n)
        certificate, key = self._authority.ensure(self._node(n))
        return {
            'name': name,
            'kubeconfig': str(lay.pki / f'{name}.kubeconfig'),
            'data-dir': str(lay.data / name),
            'listen': join(lay.address('node', n)),
            'tls-cert': str(certificate),
            'tls-key': str(key),
            'client-ca': self._ca,
            'authorization-mode': 'Webhook',
            'healthz-listen': f'{lay.node_address(n)}:{HEALTHZ_PORT}',
            'pod-manifest-path': str(lay.manifests(n)),
            'cluster-dns': lay.cluster_dns,
            'dns-listen': f'{lay.node_address(n)}:{DNS_PORT}',
        }

    def _api(self, n: int) -> Leaf:
        names = ('localhost', LOCALHOST, 'kubernetes', 'kubernetes.default', 'kubernetes.default.svc')
        cluster = ('kubernetes.default.svc.cluster.local', self._layout.kubernetes_service_ip)
        return Leaf(name_of('api', n), 'kube-apiserver', serves=(*names, *cluster))

    def _store(self, n: int) -> Leaf:
        return Leaf(name_of('store', n), name_of('store', n), serves=('localhost', self._layout.address('store', n)[0]))

    def _node(self, n: int) -> Leaf:
        name = name_of('node', n)
        return Leaf(name, f'system:node:{name}', ('system:nodes',), (name, self._layout.node_address(n)))

    def _write_kubeconfig(self, leaf: Leaf, *, people: bool = False) -> None:
        lay, disk = self._layout, self._env.disk
        certificate, key = self._ensure(self._authority, leaf)
        text = kubeconfig(
            lay.api_urls(), self._authority.certificate_pem, disk.read(certificate), disk.read(key), leaf.user
        )
        disk.replace(lay.kubeconfig if people else lay.pki / f'{leaf.name}.kubeconfig', text)
