"""Where everything of a local cluster is: files below one data directory, ports from one base, addresses in 127/8.

    <data>/cluster.json            what was started; `up` without flags starts the same again
    <data>/kubeconfig              for people (0600)
    <data>/pki/                    authority, certificates, component kubeconfigs
    <data>/node-1/manifests/       static pods of a node: drop a manifest in
    <data>/store-1/ … node-1/ …    the durable state of each member and node
    <data>/logs/<component>.log    one JSON object a line
    <data>/run/<component>.pid     who runs

Two clusters on one machine differ in their port base, and their addresses follow from it: pods, Services and nodes each
have a /16 whose second octet moves with the base's hundreds, so that neither ports nor addresses meet. After 32
hundreds it is the same again: `claims.py` sees to it that two such clusters do not run at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import orjson

from kcore.env import Env

PORT_BASE = 6440
"""API server 1 then listens on 6443, where everybody looks for it."""
PORT_BASE_MAX = 65535 - 100
KUBELET_PORT = 10250
HEALTHZ_PORT = 10248
DNS_PORT = 10053
"""Of each node's name server, which pods reach at port 53 of the Service."""
ADDRESS_BLOCKS = 32
STORES_MAX, NODES_MAX, APIS_MAX = 9, 200, 9
LOCALHOST = '127.0.0.1'

Role = Literal['store', 'api', 'manager', 'node']


class ClusterError(Exception):
    """One sentence for the person who ran the command."""


@dataclass(frozen=True, slots=True)
class Layout:
    data: Path
    stores: int = 3
    nodes: int = 2
    apis: int = 1
    managers: int = 2
    port_base: int = PORT_BASE
    members: tuple[int, ...] = ()
    """Raft ids of the store's members in order; empty while each founder is there and has its number as id."""

    @property
    def block(self) -> int:
        """Which of the blocks of addresses is this cluster's."""
        return self.port_base // 100 % ADDRESS_BLOCKS

    @property
    def cluster_cidr(self) -> str:
        return f'127.{64 + self.block}.0.0/16'

    @property
    def service_cidr(self) -> str:
        return f'127.{96 + self.block}.0.0/16'

    @property
    def kubernetes_service_ip(self) -> str:
        return f'127.{96 + self.block}.0.1'

    @property
    def node_cidr(self) -> str:
        return f'127.{128 + self.block}.0.0/16'

    @property
    def cluster_dns(self) -> str:
        """Of the Service kube-system/kube-dns: the tenth, as everywhere."""
        return f'127.{96 + self.block}.0.10'

    def node_address(self, n: int) -> str:
        return f'127.{128 + self.block}.0.{n}'

    def address(self, role: Role, n: int) -> tuple[str, int]:
        """Where member `n` (from 1) of a role serves its clients."""
        match role:
            case 'api':
                return LOCALHOST, self.port_base + 2 + n
            case 'store':
                return LOCALHOST, self.port_base + 20 + n
            case 'manager':
                return LOCALHOST, self.port_base + 60 + n
            case 'node':
                return self.node_address(n), KUBELET_PORT

    def store_http(self, n: int) -> tuple[str, int]:
        """Health and metrics of store member `n`."""
        return LOCALHOST, self.port_base + 40 + n

    def member(self, n: int) -> int:
        """The Raft id of store member `n`: its number, or what it got when it was replaced."""
        return self.members[n - 1] if self.members else n

    def store_data(self, n: int) -> Path:
        """A replacement has a directory of its own, so that what was there before can still be looked at."""
        return self.data / (f'store-{n}' if self.member(n) == n else f'store-{n}.{self.member(n)}')

    def with_member(self, n: int, member: int) -> Layout:
        ids = [self.member(i) for i in range(1, self.stores + 1)]
        ids[n - 1] = member
        return replace(self, members=tuple(ids))

    @property
    def pki(self) -> Path:
        return self.data / 'pki'

    def manifests(self, n: int) -> Path:
        """Static pods of node `n`."""
        return self.data / f'node-{n}' / 'manifests'

    @property
    def kubeconfig(self) -> Path:
        return self.data / 'kubeconfig'

    def api_urls(self) -> list[str]:
        return [f'https://{host}:{port}' for host, port in (self.address('api', n) for n in range(1, self.apis + 1))]

    def log(self, component: str) -> Path:
        return self.data / 'logs' / f'{component}.log'

    def pid_file(self, component: str) -> Path:
        return self.data / 'run' / f'{component}.pid'

    def save(self, env: Env) -> None:
        shape = {k: getattr(self, k) for k in ('stores', 'nodes', 'apis', 'managers', 'port_base', 'members')}
        env.disk.replace(self.data / 'cluster.json', orjson.dumps(shape, option=orjson.OPT_INDENT_2))

    @staticmethod
    def load(data: Path, env: Env) -> Layout | None:
        """What an earlier `up` wrote; None in a fresh directory. Raises ClusterError when the file is damaged."""
        try:
            text = env.disk.read(data / 'cluster.json')
        except FileNotFoundError:
            return None
        try:
            shape: dict[str, Any] = orjson.loads(text)
            return Layout(data, **shape | {'members': tuple(shape.get('members', ()))})
        except (ValueError, TypeError) as e:
            raise ClusterError(f'{data / "cluster.json"} is damaged ({e}); mend or delete it.') from e


def join(address: tuple[str, int]) -> str:
    return f'{address[0]}:{address[1]}'
