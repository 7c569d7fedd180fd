"""Which pods to remove by force. Pure. Source: pkg/controller/podgc/gc_controller.go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kclient.model import Obj
from kcore.meta.objects import condition_is, deleting, is_pod_finished

OUT_OF_SERVICE = 'node.kubernetes.io/out-of-service'


@dataclass(frozen=True, slots=True)
class Doomed:
    """A pod to delete with grace 0, and why."""

    pod: Obj
    why: str
    fail_first: bool
    """Mark it Failed before, so that its owner counts it right."""

    @property
    def disrupted(self) -> bool:
        """Whether its status says that this was not its own doing."""
        return self.why == _ORPHANED

    @property
    def label(self) -> str:
        """Upstream's name for `why` in its figures."""
        return _LABELS[self.why]


_ORPHANED, _UNSCHEDULED = 'PodGC: node no longer exists', 'PodGC: unscheduled and terminating'
_OUT_OF_SERVICE, _TOO_MANY = 'PodGC: node out-of-service', 'PodGC: too many finished pods'
_LABELS = {
    _ORPHANED: 'orphaned', _UNSCHEDULED: 'unscheduled', _OUT_OF_SERVICE: 'out-of-service', _TOO_MANY: 'terminated',
}  # fmt: skip


def node_of(pod: Obj) -> str:
    return str((pod.get('spec') or {}).get('nodeName') or '')


def plan(pods: Sequence[Obj], gone_nodes: Iterable[str], out_of_service: Iterable[str], threshold: int) -> list[Doomed]:
    """gone_nodes: nodes that certainly do not exist. threshold: finished pods to keep; 0 keeps all."""
    gone, out = frozenset(gone_nodes), frozenset(out_of_service)
    doomed: dict[str, Doomed] = {}
    for pod in pods:
        uid = str(pod['metadata']['uid'])
        if node_of(pod) in gone:
            doomed[uid] = Doomed(pod, _ORPHANED, not is_pod_finished(pod))
        elif deleting(pod) and not node_of(pod):
            doomed[uid] = Doomed(pod, _UNSCHEDULED, not is_pod_finished(pod))
        elif deleting(pod) and node_of(pod) in out:
            doomed[uid] = Doomed(pod, _OUT_OF_SERVICE, not is_pod_finished(pod))
    if threshold > 0:
        finished = sorted(filter(is_pod_finished, pods), key=_turn)
        for pod in finished[: max(0, len(finished) - threshold)]:
            doomed.setdefault(str(pod['metadata']['uid']), Doomed(pod, _TOO_MANY, False))
    return [*doomed.values()]


def _turn(pod: Obj) -> tuple[bool, str, str]:
    """Evicted pods go first: a controller that is evicted over and over must not push out what its pods achieved."""
    status, meta = pod.get('status') or {}, pod['metadata']
    evicted = status.get('phase') == 'Failed' and status.get('reason') == 'Evicted'
    return not evicted, str(meta.get('creationTimestamp') or ''), str(meta['name'])


def is_out_of_service(node: Obj) -> bool:
    """Tainted so, and not ready: an agent that lives ends its pods itself, whatever the taint says."""
    return not condition_is(node, 'Ready') and any(
        t.get('key') == OUT_OF_SERVICE for t in (node.get('spec') or {}).get('taints') or ()
    )
