"""What pods and containers ask for and are held to: requests, limits, QoS class, oom_score_adj. Pure.

Source: component-helpers/resource/helpers.go, pkg/apis/core/v1/helper/qos, pkg/kubelet/qos/policy.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcore.meta import quantity
from kcore.meta.podresources import in_integers, pod_total
from knode.runtime.driver import Limits

Obj = Mapping[str, Any]

COMPUTE = ('cpu', 'memory')
GUARANTEED_SCORE, BEST_EFFORT_SCORE = -997, 1000
NODE_CRITICAL = 'system-node-critical'
SYSTEM_CRITICAL_PRIORITY = 2_000_000_000
DATA_FACTOR, DATA_SPARE_BYTES = 2, 1 << 30


def requests(pod: Obj) -> dict[str, int]:
    """What a pod asks for: cpu in thousandths, everything else in units. A limit stands where no request is said."""
    spec = pod['spec']
    return pod_total({**spec, 'resources': {'requests': _said(spec)}}, 'requests', in_integers, _asked)


def _asked(c: Obj) -> dict[str, int]:
    return in_integers(_said(c))


def _said(c: Obj) -> dict[str, str]:
    resources = c.get('resources') or {}
    return {**(resources.get('limits') or {}), **(resources.get('requests') or {})}


def amount(name: str, value: str) -> int:
    return in_integers({name: value})[name]


def limit(c: Obj, name: str) -> int:
    """Of a container, or of a pod's spec; 0: none."""
    value = ((c.get('resources') or {}).get('limits') or {}).get(name)
    return amount(name, value) if value is not None else 0


def qos_class(spec: Obj) -> str:
    """Guaranteed: every container limits cpu and memory and asks for no less; BestEffort: none asks for anything.

    Resources of the pod as a whole stand instead of its containers'. Zeros do not count.
    """
    containers = [*(spec.get('containers') or ()), *(spec.get('initContainers') or ())]
    parts = [spec] if spec.get('resources') else containers
    asked, guaranteed = False, True
    for c in parts:
        resources = c.get('resources') or {}
        limits, wants = (_positive(resources.get(k)) for k in ('limits', 'requests'))
        asked = asked or bool(limits or wants)
        guaranteed = guaranteed and all(r in limits and wants.get(r, limits[r]) == limits[r] for r in COMPUTE)
    return 'BestEffort' if not asked else 'Guaranteed' if guaranteed else 'Burstable'


def _positive(given: Mapping[str, str] | None) -> dict[str, int]:
    found = {r: amount(r, (given or {})[r]) for r in COMPUTE if r in (given or {})}
    return {r: v for r, v in found.items() if v > 0}


def oom_score(pod: Obj, c: Obj, capacity: Mapping[str, str]) -> int:
    """The container's oom_score_adj: the more memory it asks for, the later it is killed. capacity: of the node."""
    spec = pod['spec']
    qos = qos_class(spec)
    if spec.get('priorityClassName') == NODE_CRITICAL or qos == 'Guaranteed':
        return GUARANTEED_SCORE
    if qos == 'BestEffort':
        return BEST_EFFORT_SCORE
    total = quantity.value(capacity.get('memory', '0')) or 1
    score = _score(c, total)
    if c.get('restartPolicy') == 'Always' and any(x['name'] == c['name'] for x in spec.get('initContainers') or ()):
        # A sidecar must not go before those it serves.
        score = min(score, *(_score(m, total) for m in spec['containers']))
    if score < BEST_EFFORT_SCORE + GUARANTEED_SCORE:
        return BEST_EFFORT_SCORE + GUARANTEED_SCORE
    return score - 1 if score == BEST_EFFORT_SCORE else score


def _score(c: Obj, total: int) -> int:
    return 1000 - 1000 * _asked(c).get('memory', 0) // total


def limits_of(pod: Obj, c: Obj, pod_pids: int) -> Limits:
    """What the kernel is to hold the container to, where it can. pod_pids: most processes of the pod; 0: any."""
    return Limits(
        cpu_milli=limit(c, 'cpu'),
        cpu_request_milli=_asked(c).get('cpu', 0),
        memory_bytes=limit(c, 'memory') or limit(pod['spec'], 'memory'),
        pod_pids=pod_pids,
    )


def rlimits(c: Obj) -> dict[str, tuple[int, int]]:
    """What of the limits a single process can be held to without any privilege.

    No core dumps beside the program; and, where memory is limited, a generous bound on a process's own writable memory:
    one that grows faster than anybody looks gets ENOMEM. It is generous because stacks of threads count in full.
    """
    found = {'RLIMIT_CORE': (0, 0)}
    if memory := limit(c, 'memory'):
        most = DATA_FACTOR * memory + DATA_SPARE_BYTES
        found['RLIMIT_DATA'] = (most, most)
    return found


def priority(pod: Obj) -> int:
    """Static pods have the priority of the system, whatever they say."""
    source = (pod['metadata'].get('annotations') or {}).get('kubernetes.io/config.source', 'api')
    said = int(pod['spec'].get('priority') or 0)
    return said if source == 'api' else max(said, SYSTEM_CRITICAL_PRIORITY)


def is_critical(pod: Obj) -> bool:
    """Never evicted: static pods, and those with a system priority."""
    return priority(pod) >= SYSTEM_CRITICAL_PRIORITY
