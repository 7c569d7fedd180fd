"""SelfSubjectRulesReview: asks for all that the caller may do; it is answered, never stored."""

from __future__ import annotations

from kapi.registry.kind import Kind
from kcore.meta.gvk import Resource

KIND = Kind(
    resource=Resource(
        'authorization.k8s.io', 'v1', 'selfsubjectrulesreviews', 'SelfSubjectRulesReview', namespaced=False
    ),
    verbs=('create',),
)
