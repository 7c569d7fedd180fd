"""Binding: ties a pod to a node; it is only ever posted, never stored."""

from __future__ import annotations

from kapi.registry.kind import Kind
from kcore.meta.gvk import Resource

KIND = Kind(resource=Resource('', 'v1', 'bindings', 'Binding'), verbs=('create',))
