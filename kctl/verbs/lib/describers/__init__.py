"""Descriptions by kind; a kind without one of its own gets the generic form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kctl.verbs.lib.describers import generic, node, pod, small, workload
from kctl.verbs.lib.describers.page import Page
from kctl.verbs.lib.session import Session

DESCRIBERS: Mapping[str, Callable[[Session, dict[str, Any], Page], None]] = {
    'pods': pod.describe,
    'nodes': node.describe,
    'deployments.apps': workload.deployment,
    'replicasets.apps': workload.replica_set,
    'services': small.service,
    'namespaces': small.namespace,
    'configmaps': small.config_map,
    'secrets': small.secret,
}
"""By qualified resource name."""

GENERIC = generic.describe
