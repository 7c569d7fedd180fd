"""VolumeBinding: a pod runs where its bound volumes are, and where volumes for its other claims can be had."""

from __future__ import annotations

from kcontrol.scheduler.framework import Check, Happening, Plugin, Rejection
from kcontrol.scheduler.nodeinfo import NodeInfo
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.snapshot import Snapshot


def find_obstacle(pod: PodInfo, snapshot: Snapshot) -> str:
    return snapshot.volumes.obstacle(pod) if pod.claims else ''


def check_volumes(pod: PodInfo, snapshot: Snapshot) -> Check | None:
    if not pod.claims:
        return None
    needs = snapshot.volumes.needs(pod)

    def check(node: NodeInfo) -> Rejection | None:
        found = needs.on(node)
        return Rejection((found,), helpless=True) if isinstance(found, str) else None

    return check


PLUGIN = Plugin(
    'VolumeBinding',
    obstacle=find_obstacle,
    filter=check_volumes,
    wakes=frozenset({Happening.NODE_ADD, Happening.NODE_LABELS, Happening.STORAGE}),
)
