"""TokenReview: asks whose token this is; it is answered, never stored."""

from __future__ import annotations

from kapi.registry.kind import Kind
from kcore.meta.gvk import Resource

KIND = Kind(
    resource=Resource('authentication.k8s.io', 'v1', 'tokenreviews', 'TokenReview', namespaced=False), verbs=('create',)
)
