"""NodeName: `spec.nodeName` of a pod that is to be measured against a given node only."""

from __future__ import annotations

from kcontrol.scheduler.framework import Happening, Plugin
from kcontrol.scheduler.podinfo import PodInfo


def named_node(pod: PodInfo) -> frozenset[str] | None:
    return frozenset((pod.node,)) if pod.node else None


PLUGIN = Plugin(
    'NodeName',
    only=named_node,
    only_reason="node(s) didn't match the requested node name",
    wakes=frozenset({Happening.NODE_ADD}),
)
