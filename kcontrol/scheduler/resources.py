"""What a pod asks for, in the integers that nodes are filled with (`kcore.meta.podresources.in_integers`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcore.meta.podresources import in_integers, pod_total

Obj = Mapping[str, Any]
Amounts = dict[str, int]

CPU, MEMORY, EPHEMERAL, PODS = 'cpu', 'memory', 'ephemeral-storage', 'pods'
DEFAULT_CPU_MILLI = 100
"""Assumed for scoring when a container asks for no cpu, so that many such pods do not pile up on one node."""
DEFAULT_MEMORY = 200 * 1024 * 1024
"""The same for memory, in bytes."""


def pod_requests(pod: Obj, *, assume_defaults: bool = False) -> Amounts:
    """The most that the pod uses at any one moment; with `assume_defaults`, the figures that scoring uses.

    Of a pod that is being resized the larger of what it wants and what it has; a wish that its node can never grant
    does not count. Source: component-helpers/resource/helpers.go determineContainerReqs.
    """
    given = held(pod)
    if not given and not assume_defaults:
        return pod_total(pod.get('spec') or {}, 'requests', in_integers)
    hopeless = bool(given) and _is_infeasible(pod)

    def of(container: Obj) -> Amounts:
        asked = in_integers((container.get('resources') or {}).get('requests'))
        if (has := given.get(container['name'])) is not None:
            asked = has if hopeless else {k: max(asked.get(k, 0), has.get(k, 0)) for k in asked.keys() | has.keys()}
        if assume_defaults:
            asked = {CPU: DEFAULT_CPU_MILLI, MEMORY: DEFAULT_MEMORY, **asked}
        return asked

    return pod_total(pod.get('spec') or {}, 'requests', in_integers, of)


def held(pod: Obj) -> dict[str, Amounts]:
    """What the node has given containers, by name, where it is not what they ask for: of most pods nothing."""
    spec, status = pod.get('spec') or {}, pod.get('status') or {}
    statuses = [*(status.get('containerStatuses') or ()), *(status.get('initContainerStatuses') or ())]
    if not statuses:
        return {}
    containers = [*(spec.get('containers') or ()), *(spec.get('initContainers') or ())]
    asked = {c['name']: (c.get('resources') or {}).get('requests') for c in containers}
    found: dict[str, Amounts] = {}
    for s in statuses:
        for given in (s.get('allocatedResources'), (s.get('resources') or {}).get('requests')):
            if given and given != asked.get(s['name']):
                known, more = found.setdefault(s['name'], {}), in_integers(given)
                known.update({k: max(known.get(k, 0), v) for k, v in more.items()})
    return found


def _is_infeasible(pod: Obj) -> bool:
    conditions = (pod.get('status') or {}).get('conditions') or ()
    return any(c.get('type') == 'PodResizePending' and c.get('reason') == 'Infeasible' for c in conditions)
