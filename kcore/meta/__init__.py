"""Kubernetes' nouns as pure functions: names, kinds, selectors, quantities, patches, field ownership, Status."""
