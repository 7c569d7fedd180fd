"""Images: what `image:` means on a node without a container registry, and the programs behind the named ones."""
