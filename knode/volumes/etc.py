"""What a container finds in /etc/hosts and /etc/resolv.conf, as pure functions of its pod.

Source: pkg/kubelet/kubelet_pods.go (managedHostsFileContent), pkg/kubelet/network/dns/dns.go.
"""

from __future__ import annotations

from collections.abc import Iterator

from kcore.meta.clusterdns import DOMAIN
from knode.pods.model import Obj

HOSTNAME_CHARS_MAX = 63
SERVERS_MAX, SEARCHES_MAX = 3, 32
"""What resolvers read; the rest is left out."""
NDOTS = {'ndots': '5'}
MANAGED = '# Kubernetes-managed hosts file'
LOCAL = (
    '127.0.0.1\tlocalhost', '::1\tlocalhost ip6-localhost ip6-loopback', 'fe00::\tip6-localnet',
    'fe00::\tip6-mcastprefix', 'fe00::1\tip6-allnodes', 'fe00::2\tip6-allrouters',
)  # fmt: skip


def hostname(pod: Obj) -> str:
    """What a pod calls itself; empty: as its machine."""
    if pod['spec'].get('hostNetwork'):
        return ''
    name = str(pod['spec'].get('hostname') or pod['metadata']['name'])[:HOSTNAME_CHARS_MAX].rstrip('-.')
    return domain_name(pod) or name if pod['spec'].get('setHostnameAsFQDN') else name


def domain_name(pod: Obj) -> str:
    """Its full name below its headless Service; empty when it names none."""
    spec = pod['spec']
    if not spec.get('subdomain'):
        return ''
    name = str(spec.get('hostname') or pod['metadata']['name'])[:HOSTNAME_CHARS_MAX]
    return f'{name}.{spec["subdomain"]}.{pod["metadata"]["namespace"]}.svc.{DOMAIN}'


def hosts(pod: Obj, address: str, of_machine: str) -> str:
    """of_machine: the node's own file, which pods of the host's network build on."""
    if pod['spec'].get('hostNetwork'):
        lines = [f'{MANAGED} (host network).', of_machine.rstrip('\n')]
    else:
        names = [n for n in (domain_name(pod), hostname(pod)) if n]
        lines = [f'{MANAGED}.', *LOCAL, '\t'.join([address, *dict.fromkeys(names)])]
    aliases = pod['spec'].get('hostAliases') or ()
    if aliases:
        lines += ['', '# Entries added by HostAliases.']
        lines += ['\t'.join([a['ip'], *(a.get('hostnames') or ())]) for a in aliases]
    return '\n'.join(lines) + '\n'


def asks_cluster(pod: Obj) -> bool:
    """Whether its DNS policy brings the cluster's name server."""
    policy = pod['spec'].get('dnsPolicy') or 'ClusterFirst'
    return policy == 'ClusterFirstWithHostNet' or (policy == 'ClusterFirst' and not pod['spec'].get('hostNetwork'))


def resolver(pod: Obj, of_machine: str, cluster: str = '') -> str:
    """resolv.conf of a pod; empty: the machine's serves.

    cluster:  address of the cluster's name server; empty: there is none, and its policies mean Default.
    """
    spec = pod['spec']
    wanted, alone = spec.get('dnsConfig') or {}, spec.get('dnsPolicy') == 'None'
    first = bool(cluster) and asks_cluster(pod)
    if not (wanted or alone or first):
        return ''
    servers, searches, options = parse('' if alone else of_machine)
    if first:
        domains = [f'{pod["metadata"]["namespace"]}.svc.{DOMAIN}', f'svc.{DOMAIN}', DOMAIN]
        servers, searches, options = [cluster], [*domains, *(s for s in searches if s not in domains)], dict(NDOTS)
    servers += [s for s in wanted.get('nameservers') or () if s not in servers]
    searches += [s for s in wanted.get('searches') or () if s not in searches]
    options |= {o['name']: o.get('value') for o in wanted.get('options') or ()}
    return ''.join(f'{line}\n' for line in _written(servers[:SERVERS_MAX], searches[:SEARCHES_MAX], options))


def _written(servers: list[str], searches: list[str], options: dict[str, str | None]) -> Iterator[str]:
    yield from (f'nameserver {s}' for s in servers)
    if searches:
        yield f'search {" ".join(searches)}'
    if options:
        yield 'options ' + ' '.join(k if v is None else f'{k}:{v}' for k, v in options.items())


def parse(text: str) -> tuple[list[str], list[str], dict[str, str | None]]:
    """(name servers, search domains, options) of a resolv.conf."""
    servers: list[str] = []
    searches: list[str] = []
    options: dict[str, str | None] = {}
    for line in text.splitlines():
        word, *rest = line.split() or ['']
        if word == 'nameserver':
            servers += rest[:1]
        elif word in {'search', 'domain'}:
            searches = rest
        elif word == 'options':
            options |= {k: v or None for k, _, v in (o.partition(':') for o in rest)}
    return servers, searches, options
