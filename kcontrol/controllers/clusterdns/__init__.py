"""Cluster DNS: the Service `kube-system/kube-dns` leads to the name servers of the node agents."""
