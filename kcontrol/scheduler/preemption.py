"""Preemption: which pods of lower priority must go, and where, so that a pod fits.

Per node: take all lower-priority pods away; if the pod then fits, give back as many as possible, the most important
first and those whose disruption budget is exhausted before the others. Among nodes: fewest budget violations, lowest
highest-victim priority, lowest sum of priorities, fewest victims, latest start of the most important victims.
Source: Kubernetes documentation, "Pod Priority and Preemption"; kube-scheduler's default preemption plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kcontrol.scheduler.framework import Check, Framework, Refused, Rejection, refusal_text
from kcontrol.scheduler.nodeinfo import NodeInfo
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.snapshot import Snapshot
from kcontrol.scheduler.terms import Labels, pod_selector

Obj = dict[str, Any]

CANDIDATES_MIN = 100
CANDIDATES_PERCENT = 10
"""Nodes tried at most: the greater of the two; the search begins at a random one."""

NOT_HELPFUL = Rejection(('Preemption is not helpful for scheduling',))
NO_VICTIMS = Rejection(('No preemption victims found for incoming pod',))


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget: how many more of the pods it selects may be disrupted."""

    namespace: str
    matches: Callable[[Labels], bool]
    allowed: int
    disrupted: frozenset[str]
    """Names of pods already counted as disrupted."""


def parse_budget(obj: Obj) -> Budget:
    spec, status = obj.get('spec') or {}, obj.get('status') or {}
    selector = pod_selector(spec.get('selector'), ())
    return Budget(
        obj['metadata'].get('namespace', ''),
        selector.matches_labels,
        int(status.get('disruptionsAllowed') or 0),
        frozenset(status.get('disruptedPods') or ()),
    )


class Preemption(NamedTuple):
    node: str
    victims: tuple[PodInfo, ...]


class Candidate(NamedTuple):
    node: str
    victims: tuple[PodInfo, ...]
    violations: int
    """How many victims are protected by an exhausted budget."""

    def cost(self) -> tuple[int, int, int, int]:
        priorities = [v.priority for v in self.victims]
        # Offset so that many pods of negative priority weigh more than few.
        return self.violations, max(priorities), sum(p + 2**31 for p in priorities), len(priorities)

    def youngest_start(self) -> str:
        """The earliest start among its most important victims."""
        top = max(v.priority for v in self.victims)
        return min(v.started for v in self.victims if v.priority == top)


def preempt(
    pod: PodInfo, snapshot: Snapshot, refused: Refused, framework: Framework, budgets: Iterable[Budget] = ()
) -> Preemption | str:
    """What to evict for `pod`, or the sentence that says why that does not help."""
    if not pod.preempts:
        return 'preemption: not eligible due to preemptionPolicy=Never.'
    if _victims_are_leaving(pod, snapshot):
        return 'preemption: not eligible due to a terminating pod on the nominated node.'
    reasons: dict[str, Rejection] = {
        n: NOT_HELPFUL for n in snapshot.order if (r := refused.rejections.get(n)) is None or r.helpless
    }
    hopeful = [n for n in snapshot.order if n not in reasons]
    if not hopeful:
        return f'preemption: {refusal_text(len(snapshot.order), reasons.values())}'
    trial = _Trial(pod, snapshot, framework, framework.checks(pod, snapshot), tuple(budgets))
    found: list[Candidate] = []
    enough = max(CANDIDATES_MIN, len(snapshot.order) * CANDIDATES_PERCENT // 100)
    start = framework.rng.randrange(len(hopeful))
    for name in hopeful[start:] + hopeful[:start]:
        result = trial.on(snapshot.nodes[name])
        if isinstance(result, Rejection):
            reasons[name] = result
        else:
            found.append(result)
            if len(found) >= enough:
                break
    if not found:
        return f'preemption: {refusal_text(len(snapshot.order), reasons.values())}'
    best = cheapest(found)
    return Preemption(best.node, best.victims)


def cheapest(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate that disturbs least."""
    least = min(c.cost() for c in candidates)
    return max((c for c in candidates if c.cost() == least), key=Candidate.youngest_start)


def _victims_are_leaving(pod: PodInfo, snapshot: Snapshot) -> bool:
    node = snapshot.nodes.get(pod.nominated)
    return node is not None and any(p.deleting and p.priority < pod.priority for p in node.pods.values())


@dataclass(frozen=True, slots=True)
class _Trial:
    """What would have to go from a node for `pod` to fit."""

    pod: PodInfo
    snapshot: Snapshot
    framework: Framework
    checks: list[tuple[str, Check]]
    """Of `pod`; they hold for changed nodes as long as no rule looks beyond the node."""
    budgets: Sequence[Budget]

    def on(self, node: NodeInfo) -> Candidate | Rejection:
        lower = [p for p in node.pods.values() if p.priority < self.pod.priority]
        if not lower:
            return NO_VICTIMS
        for victim in lower:
            node = node.without_pod(victim.uid)
        rejection = self._fits(node)
        if rejection is not None:
            return rejection
        lower.sort(key=lambda p: (-p.priority, p.started))
        protected, others = split_by_budget(lower, self.budgets)
        victims: list[PodInfo] = []
        violations = 0
        for spared in (*protected, *others):
            fuller = node.with_pod(spared)
            if self._fits(fuller) is None:
                node = fuller
            else:
                victims.append(spared)
                violations += spared in protected
        return Candidate(node.name, tuple(victims), violations) if victims else NO_VICTIMS

    def _fits(self, node: NodeInfo) -> Rejection | None:
        pod, framework = self.pod, self.framework
        relational = pod.holds_pod_terms or pod.spread or self.snapshot.carries_pod_terms
        checks = framework.checks(pod, self.snapshot.with_node(node)) if relational else self.checks
        late = framework.passes(pod, node, checks, self.snapshot)
        return late[1] if late else None


def split_by_budget(pods: Sequence[PodInfo], budgets: Sequence[Budget]) -> tuple[list[PodInfo], list[PodInfo]]:
    """(those whose eviction breaks a budget, the others), in the given order."""
    left = [b.allowed for b in budgets]
    protected: list[PodInfo] = []
    others: list[PodInfo] = []
    for pod in pods:
        broken = False
        for i, budget in enumerate(budgets):
            if budget.namespace != pod.namespace or not pod.labels or not budget.matches(pod.labels):
                continue
            if pod.name in budget.disrupted:
                continue
            left[i] -= 1
            broken = broken or left[i] < 0
        (protected if broken else others).append(pod)
    return protected, others
