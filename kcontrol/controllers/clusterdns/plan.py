"""Nodes → the Service of the cluster's name servers and its Endpoints. Pure.

Names, labels and ports are those of upstream's deployments (cluster/addons/dns/coredns), but no selector: the servers
are no pods.
"""

from __future__ import annotations

from collections.abc import Iterable

from kclient.model import Obj
from kcore.meta.clusterdns import ADDRESS_ANNOTATION, NAMESPACE, PORT, SERVICE
from kcore.meta.objects import annotations_of, condition_is, deleting, name_of

LABELS = {'k8s-app': 'kube-dns', 'kubernetes.io/cluster-service': 'true', 'kubernetes.io/name': 'CoreDNS'}
PORTS = (('dns', 'UDP'), ('dns-tcp', 'TCP'))


def service(address: str) -> Obj:
    ports = [{'name': name, 'port': PORT, 'protocol': protocol, 'targetPort': PORT} for name, protocol in PORTS]
    return {
        'metadata': {'name': SERVICE, 'namespace': NAMESPACE, 'labels': LABELS},
        'spec': {'type': 'ClusterIP', 'clusterIP': address, 'ports': ports},
    }


def subsets(nodes: Iterable[Obj]) -> list[Obj]:
    """One for each port that name servers listen at; those of nodes that are not Ready are not ready."""
    by_port: dict[int, dict[bool, list[Obj]]] = {}
    for node in sorted(nodes, key=name_of):
        host, _, port = annotations_of(node).get(ADDRESS_ANNOTATION, '').rpartition(':')
        if host and port.isdigit() and not deleting(node):
            ready = condition_is(node, 'Ready')
            by_port.setdefault(int(port), {}).setdefault(ready, []).append({'ip': host, 'nodeName': name_of(node)})
    keys = {True: 'addresses', False: 'notReadyAddresses'}
    return [
        {keys[ready]: found for ready, found in sorted(members.items(), reverse=True)}
        | {'ports': [{'name': name, 'port': port, 'protocol': protocol} for name, protocol in PORTS]}
        for port, members in sorted(by_port.items())
    ]
