"""What the verbs share: connection, discovery, manifests, selection of objects."""
