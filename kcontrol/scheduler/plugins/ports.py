"""NodePorts: two pods cannot have the same port of one host; `0.0.0.0` collides with every address."""

from __future__ import annotations

from kcontrol.scheduler.framework import Check, Happening, Plugin, Rejection
from kcontrol.scheduler.nodeinfo import NodeInfo
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.snapshot import Snapshot

REJECTED = Rejection(("node(s) didn't have free ports for the requested pod ports",))


def check_ports(pod: PodInfo, _snapshot: Snapshot) -> Check | None:
    wanted = pod.ports
    if not wanted:
        return None

    def check(node: NodeInfo) -> Rejection | None:
        return REJECTED if any(w.conflicts(used) for used in node.ports for w in wanted) else None

    return check


PLUGIN = Plugin('NodePorts', filter=check_ports, wakes=frozenset({Happening.NODE_ADD, Happening.POD_DELETE}))
