"""Static pods: manifests in a directory of the node, run without the API, and their mirrors in it."""
