"""A pod's phase from its containers' states.

| init containers | main containers | restartPolicy | phase |
|---|---|---|---|
| one failed for good | – | Never | Failed |
| not all done | – | any | Pending |
| done | one was never started | any | Pending |
| done | one runs | any | Running |
| done | all ended | Always | Running |
| done | all ended with 0 | OnFailure, Never | Succeeded |
| done | all ended, one badly | Never | Failed |
| done | all ended, one badly | OnFailure | Running |

A pod that was condemned from outside is Failed once nothing of it runs any more, and no other pod has ended as long as
one of its sidecars runs: until then its resources are in use.
A sidecar that has started is done. Source: kubelet_pods.go getPhase.
"""

from __future__ import annotations

from knode.pods.model import View, containers_of
from knode.runtime.driver import Record


def phase(view: View) -> str:
    found = _by_containers(view)
    if found in {'Succeeded', 'Failed'} and view.running():  # sidecars outlive those they serve
        return 'Running' if any(view.latest(c['name']) for c in view.spec['containers']) else 'Pending'
    return found


def _by_containers(view: View) -> str:
    if view.verdict is not None and not view.running():
        return 'Failed'
    inits = [(view.latest(c['name']), kind) for c, kind in containers_of(view.spec) if kind in {'init', 'sidecar'}]
    mains = [view.latest(c['name']) for c in view.spec['containers']]
    begun = any(r is not None for r in mains)
    if view.restart_policy == 'Never' and any(r and r.finished_ns and r.exit_code for r, k in inits if k == 'init'):
        return 'Failed'
    if not begun and not all(_done(view, r, kind) for r, kind in inits):
        return 'Pending'
    if not all(r is not None for r in mains):
        return 'Pending'
    if any(r.running for r in mains if r is not None):
        return 'Running'
    if view.restart_policy == 'Always':
        return 'Running' if view.grace_s is None else _ended(mains)
    if all(r.exit_code == 0 for r in mains if r is not None):
        return 'Succeeded'
    return 'Failed' if view.restart_policy == 'Never' or view.grace_s is not None else 'Running'


def _ended(mains: list[Record | None]) -> str:
    """A deleted pod whose containers have all ended is terminal, whatever its restart policy."""
    return 'Succeeded' if all(r is not None and r.exit_code == 0 for r in mains) else 'Failed'


def _done(view: View, record: Record | None, kind: str) -> bool:
    if record is None:
        return False
    if kind == 'sidecar':
        return record.running and view.check(record).started
    return bool(record.finished_ns) and record.exit_code == 0
