"""NodeUnschedulable: a cordoned node takes only pods that tolerate being unscheduled from it."""

from __future__ import annotations

from kcontrol.scheduler.framework import Check, Happening, Plugin, Rejection
from kcontrol.scheduler.nodeinfo import NodeInfo
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.snapshot import Snapshot
from kcontrol.scheduler.terms import Taint, tolerated

CORDONED = Taint('node.kubernetes.io/unschedulable', '', 'NoSchedule')
REJECTED = Rejection(('node(s) were unschedulable',), helpless=True)


def check_cordon(pod: PodInfo, snapshot: Snapshot) -> Check | None:
    if not snapshot.cordoned:
        return None
    if pod.tolerations and tolerated(CORDONED, pod.tolerations):
        return None

    def check(node: NodeInfo) -> Rejection | None:
        return REJECTED if node.unschedulable else None

    return check


PLUGIN = Plugin('NodeUnschedulable', filter=check_cordon, wakes=frozenset({Happening.NODE_ADD, Happening.NODE_TAINTS}))
