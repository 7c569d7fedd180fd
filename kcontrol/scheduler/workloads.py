"""Services and workload controllers: which other pods belong together with a pod (default topology spread)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.terms import Labels, PodSelector, pod_selector

Obj = dict[str, Any]


@dataclass(slots=True)
class Workloads:
    """Selectors by namespace. A Service or ReplicationController has a plain map, others a LabelSelector."""

    _services: dict[str, dict[str, Labels]] = field(default_factory=dict)
    _owners: dict[tuple[str, str, str], Obj] = field(default_factory=dict)
    """(kind, namespace, name) → LabelSelector."""

    def set_service(self, namespace: str, name: str, selector: Labels | None) -> None:
        """None: deleted."""
        known = self._services.setdefault(namespace, {})
        if selector == known.get(name):
            return
        if selector is None:
            known.pop(name, None)
        else:
            known[name] = selector

    def set_owner(self, kind: str, namespace: str, name: str, selector: Obj | None) -> None:
        """None: deleted."""
        key = (kind, namespace, name)
        if selector is None:
            self._owners.pop(key, None)
        else:
            self._owners[key] = selector

    def siblings(self, pod: PodInfo) -> PodSelector | None:
        """The pods that the services and the controller of `pod` select together; None when nothing selects it."""
        labels: dict[str, str] = {}
        for selector in self._services.get(pod.namespace, {}).values():
            if selector and selector.items() <= pod.labels.items():
                labels |= selector
        owner = self._owners.get((pod.owner[0], pod.namespace, pod.owner[1]))
        if owner is None and not labels:
            return None
        expressions = list((owner or {}).get('matchExpressions') or ())
        labels |= (owner or {}).get('matchLabels') or {}
        return pod_selector({'matchLabels': labels, 'matchExpressions': expressions}, (pod.namespace,))
