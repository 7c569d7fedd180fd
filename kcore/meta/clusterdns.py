"""What node agents and controllers agree on about the cluster's name servers."""

from __future__ import annotations

DOMAIN = 'cluster.local'
NAMESPACE, SERVICE = 'kube-system', 'kube-dns'
PORT = 53
ADDRESS_ANNOTATION = 'dns.kubeling.dev/address'
"""Of a Node whose agent answers questions there: HOST:PORT."""
