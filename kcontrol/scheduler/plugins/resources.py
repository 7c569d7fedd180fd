"""NodeResourcesFit and NodeResourcesBalancedAllocation: room for the pod, and where room is best used.

Fit compares exact requests with what is left of `allocatable`. Scoring prefers the emptiest node (least allocated) and
the one whose cpu and memory would be used in like proportion.
"""

from __future__ import annotations

from collections.abc import Sequence

from kcontrol.scheduler.framework import MAX_SCORE, Check, Happening, Plugin, Rejection
from kcontrol.scheduler.nodeinfo import NodeInfo
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.resources import CPU, EPHEMERAL, MEMORY
from kcontrol.scheduler.snapshot import Snapshot


def check_room(pod: PodInfo, _snapshot: Snapshot) -> Check:
    cpu, memory, ephemeral, extended = pod.cpu, pod.memory, pod.ephemeral, pod.extended

    def check(node: NodeInfo) -> Rejection | None:
        # A request of nothing fits even where more than everything is taken already.
        if (
            len(node.pods) < node.pods_max
            and (not cpu or cpu <= node.cpu - node.used_cpu)
            and (not memory or memory <= node.memory - node.used_memory)
            and (not ephemeral or ephemeral <= node.ephemeral - node.used_ephemeral)
            and not extended
        ):
            return None
        return _shortage(pod, node)

    return check


def _shortage(pod: PodInfo, node: NodeInfo) -> Rejection | None:
    """Everything that is missing; helpless when even an empty node would be too small."""
    used = node.used_extended or {}
    asked = [(CPU, pod.cpu, node.cpu, node.used_cpu), (MEMORY, pod.memory, node.memory, node.used_memory)]
    asked.append((EPHEMERAL, pod.ephemeral, node.ephemeral, node.used_ephemeral))
    asked += [(name, amount, node.extended.get(name, 0), used.get(name, 0)) for name, amount in pod.extended]
    short = [(name, amount > total) for name, amount, total, taken in asked if amount and amount > total - taken]
    reasons = tuple(f'Insufficient {name}' for name, _ in short)
    if len(node.pods) >= node.pods_max:
        reasons = ('Too many pods', *reasons)
    if not reasons:
        return None
    return Rejection(reasons, helpless=any(never for _, never in short) or node.pods_max == 0)


def least_allocated(pod: PodInfo, _snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float]:
    """The mean of the free shares of cpu and memory, in per cent."""
    return [(c + m) // 2 for c, m in zip(_free_cpu(pod, nodes), _free_memory(pod, nodes), strict=True)]


def _free_cpu(pod: PodInfo, nodes: Sequence[NodeInfo]) -> list[int]:
    extra = pod.scoring_cpu
    return [
        (total - used) * MAX_SCORE // total if (used := n.scoring_cpu + extra) < (total := n.cpu) else 0 for n in nodes
    ]


def _free_memory(pod: PodInfo, nodes: Sequence[NodeInfo]) -> list[int]:
    extra = pod.scoring_memory
    return [
        (total - used) * MAX_SCORE // total if (used := n.scoring_memory + extra) < (total := n.memory) else 0
        for n in nodes
    ]


def balanced(pod: PodInfo, _snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    """100 when the shares of cpu and memory in use would be equal, less the further they are apart."""
    cpu, memory = pod.cpu, pod.memory
    if not cpu and not memory:
        return None
    shares = [
        ((n.used_cpu + cpu) / n.cpu - (n.used_memory + memory) / n.memory) if n.cpu and n.memory else 0.0 for n in nodes
    ]
    # An over-committed node (shares above 1) cannot be further out of balance than entirely.
    return [int(MAX_SCORE - MAX_SCORE / 2 * (d if 0 <= d <= 1 else min(1.0, abs(d)))) for d in shares]


_MORE_ROOM = frozenset({Happening.NODE_ADD, Happening.NODE_ALLOCATABLE, Happening.POD_DELETE, Happening.POD_UPDATE})

FIT = Plugin('NodeResourcesFit', filter=check_room, score=least_allocated, wakes=_MORE_ROOM)
BALANCED = Plugin('NodeResourcesBalancedAllocation', score=balanced)
