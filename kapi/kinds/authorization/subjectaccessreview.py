"""SubjectAccessReview: asks whether a user may do something; it is answered, never stored."""

from __future__ import annotations

from kapi.registry.kind import Kind
from kcore.meta.gvk import Resource

KIND = Kind(
    resource=Resource('authorization.k8s.io', 'v1', 'subjectaccessreviews', 'SubjectAccessReview', namespaced=False),
    verbs=('create',),
)
