"""SelfSubjectReview: asks who the caller is; it is answered, never stored."""

from __future__ import annotations

from dataclasses import replace

from kapi.registry.kind import Kind
from kcore.meta.gvk import Resource

KIND = Kind(
    resource=Resource('authentication.k8s.io', 'v1', 'selfsubjectreviews', 'SelfSubjectReview', namespaced=False),
    verbs=('create',),
)
BETA = replace(KIND, resource=replace(KIND.resource, version='v1beta1'))
"""What kubectl 1.27 asks."""
