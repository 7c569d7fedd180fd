"""`kctl agent`: make this machine a node of a running cluster, and be its agent in this terminal."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from kcore.env import Env
from kctl.local.layout import DNS_PORT
from kctl.verbs.lib.errors import CliError

TOKEN_VARIABLE = 'KUBELING_JOIN_TOKEN'  # noqa: S105 — a name
KUBELET_PORT = 10250
JOINED_BLOCK = ipaddress.IPv4Network('127.160.0.0/11')
"""Loopback addresses of nodes that join a cluster on this machine; see kctl.local.layout for the other blocks."""


@click.command('agent')
@click.option('--server', 'servers', required=True, help='URL of an API server; several with commas.')
@click.option(
    '--token',
    default='',
    envvar=TOKEN_VARIABLE,
    show_envvar=True,
    help='Join token (`kctl token create`); not needed once the node has joined.',
)
@click.option(
    '--token-file',
    type=click.Path(dir_okay=False, path_type=Path),
    help='File with the join token: other users of this machine see the flags of processes.',
)
@click.option('--name', default='', help="Name of the node; default: the machine's.")
@click.option('--data-dir', type=click.Path(file_okay=False, path_type=Path), default=Path('.kubeling-agent'),
              show_default=True, help='Where the node keeps its credentials and pods.')  # fmt: skip
@click.option('--listen', default='', help='HOST:PORT of the kubelet API; the host is the address of the node.')
@click.option('--labels', default='', help='Further node labels, a=b,c=d.')
@click.option(
    '--cluster-dns', default='', help='Address of the Service kube-system/kube-dns, where pods ask for names.'
)
def command(
    *, servers: str, token: str, token_file: Path | None, name: str, data_dir: Path, listen: str, labels: str,
    cluster_dns: str,
) -> int:  # fmt: skip
    """Join a cluster and run its pods on this machine, until interrupted."""
    from kcore import process  # noqa: PLC0415 — the agent is much to import
    from knode import agent  # noqa: PLC0415
    from knode.config import NodeConfig  # noqa: PLC0415
    from knode.join import Credentials, Invitation, JoinError  # noqa: PLC0415

    env, urls = Env.real(), tuple(url(s) for s in servers.split(',') if s)
    name = name or socket.gethostname().lower().partition('.')[0]
    where = listen or f'{own_address(urls[0], name)}:{KUBELET_PORT}'
    credentials = Credentials(env, data_dir.absolute(), name, where.rpartition(':')[0].strip('[]'))
    if not credentials.good():
        try:
            asyncio.run(credentials.join(Invitation(urls, join_token(token, token_file, env))))
        except JoinError as e:
            raise CliError(str(e)) from None
    print(f'node {name} at {where}; Ctrl-C stops it, its pods go on', file=sys.stderr, flush=True)
    certificate, key = credentials.pair('serving')
    config = NodeConfig.load(
        ['--name', name, '--kubeconfig', str(credentials.kubeconfig), '--data-dir', str(data_dir), '--listen', where,
         '--tls-cert', str(certificate), '--tls-key', str(key), '--client-ca', str(credentials.authority),
         '--labels', labels, *names(cluster_dns, where)],
        prog='kctl agent',
    )  # fmt: skip
    return process.main('knode', agent.joined(credentials), config)


def names(cluster_dns: str, where: str) -> list[str]:
    """Flags with which a node answers questions about names, beside the others of its cluster."""
    if not cluster_dns:
        return []
    return ['--cluster-dns', cluster_dns, '--dns-listen', f'{where.rpartition(":")[0]}:{DNS_PORT}']


def join_token(token: str, file: Path | None, env: Env) -> str:
    """Raises CliError."""
    if file is None:
        return token
    if token:
        raise CliError(f'--token (or {TOKEN_VARIABLE}) and --token-file exclude each other')
    try:
        return env.disk.read(file).decode().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise CliError(f'--token-file: {e}') from None


def url(text: str) -> str:
    """Raises CliError."""
    found = text if '://' in text else f'https://{text}'
    if urlsplit(found).scheme != 'https' or not urlsplit(found).hostname:
        raise CliError(f'--server: {text!r} is not the https URL of an API server')
    return found.rstrip('/')


def own_address(server: str, name: str) -> str:
    """The address by which this machine reaches the server; beside a server of this machine one that is free."""
    parts = urlsplit(server)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((parts.hostname, parts.port or 443))  # sends nothing: the kernel chooses the route
            address = str(probe.getsockname()[0])
    except OSError as e:
        raise CliError(f'{server} cannot be reached: {e}; name the own address with --listen') from None
    if not ipaddress.ip_address(address).is_loopback:
        return address
    spread = int.from_bytes(hashlib.sha256(f'{server} {name}'.encode()).digest()[:4])
    return str(JOINED_BLOCK[1 + spread % (JOINED_BLOCK.num_addresses - 2)])
