"""Root CA publisher: `kube-root-ca.crt` in every namespace, for pods that talk to the API."""
