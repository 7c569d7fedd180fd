"""What `kubectl get pods` shows: one word for the state of many containers.

Source: pkg/printers/internalversion/printers.go, printPod.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kapi.kinds.printing import AGE, NONE, text
from kapi.registry.kind import Col
from kcore.meta.objects import condition_is, is_pod_finished, is_pod_ready
from kcore.meta.times import age

Obj = dict[str, Any]

UNREACHABLE = 'NodeLost'
_INITIALIZING = 'PodInitializing'


@dataclass(slots=True)
class Summary:
    """The four facts that a row is made of, gathered container by container."""

    reason: str
    ready: int = 0
    total: int = 0
    restarts: int = 0
    last_restart: str = ''
    """Finish time of the latest earlier run; RFC 3339 in UTC sorts as text."""

    def count_restart(self, container: Obj) -> None:
        self.restarts += int(container.get('restartCount') or 0)
        finished = ((container.get('lastState') or {}).get('terminated') or {}).get('finishedAt') or ''
        self.last_restart = max(self.last_restart, finished)


def summarize(pod: Obj) -> Summary:
    """Everything that the columns READY, STATUS and RESTARTS say."""
    spec, status = pod.get('spec') or {}, pod.get('status') or {}
    phase = status.get('phase') or ''
    sidecars = {c.get('name') for c in spec.get('initContainers') or () if c.get('restartPolicy') == 'Always'}
    summary = Summary(status.get('reason') or phase, total=len(spec.get('containers') or ()) + len(sidecars))
    for condition in status.get('conditions') or ():
        if condition.get('type') == 'PodScheduled' and condition.get('reason') == 'SchedulingGated':
            summary.reason = 'SchedulingGated'
    waiting_for_init, of_sidecars = _init_containers(spec, status, sidecars, summary)
    if not waiting_for_init or condition_is(pod, 'Initialized'):
        summary.restarts, summary.last_restart = of_sidecars.restarts, of_sidecars.last_restart
        _main_containers(pod, status, summary)
    if (pod.get('metadata') or {}).get('deletionTimestamp'):
        if status.get('reason') == UNREACHABLE:
            summary.reason = 'Unknown'
        elif not is_pod_finished(pod):
            summary.reason = 'Terminating'
    return summary


def _init_containers(spec: Obj, status: Obj, sidecars: set[Any], summary: Summary) -> tuple[bool, Summary]:
    """Whether an init container still holds the pod back, and the restarts of the restartable ones alone."""
    of_sidecars = Summary('')
    for i, container in enumerate(status.get('initContainerStatuses') or ()):
        summary.count_restart(container)
        sidecar = container.get('name') in sidecars
        if sidecar:
            of_sidecars.count_restart(container)
        state = container.get('state') or {}
        terminated, waiting = state.get('terminated'), state.get('waiting') or {}
        if terminated and not terminated.get('exitCode'):
            continue
        if sidecar and container.get('started'):
            summary.ready += bool(container.get('ready'))
            continue
        if terminated:
            summary.reason = f'Init:{_ended(terminated)}'
        elif waiting.get('reason') not in (None, '', _INITIALIZING):
            summary.reason = f'Init:{waiting["reason"]}'
        else:
            summary.reason = f'Init:{i}/{len(spec.get("initContainers") or ())}'
        return True, of_sidecars
    return False, of_sidecars


def _main_containers(pod: Obj, status: Obj, summary: Summary) -> None:
    running = False
    for container in reversed(status.get('containerStatuses') or ()):
        summary.count_restart(container)
        state = container.get('state') or {}
        if (state.get('waiting') or {}).get('reason'):
            summary.reason = state['waiting']['reason']
        elif state.get('terminated') is not None:
            summary.reason = _ended(state['terminated'])
        elif container.get('ready') and state.get('running') is not None:
            running = True
            summary.ready += 1
    if summary.reason == 'Completed' and running:
        summary.reason = 'Running' if is_pod_ready(pod) else 'NotReady'


def _ended(terminated: Obj) -> str:
    if terminated.get('reason'):
        return str(terminated['reason'])
    if terminated.get('signal'):
        return f'Signal:{terminated["signal"]}'
    return f'ExitCode:{terminated.get("exitCode") or 0}'


def _ready(pod: Obj, _now: datetime) -> str:
    summary = summarize(pod)
    return f'{summary.ready}/{summary.total}'


def _status(pod: Obj, _now: datetime) -> str:
    return summarize(pod).reason


def _restarts(pod: Obj, now: datetime) -> str:
    summary = summarize(pod)
    if summary.restarts and summary.last_restart:
        return f'{summary.restarts} ({age(summary.last_restart, now)} ago)'
    return str(summary.restarts)


def _ip(pod: Obj, _now: datetime) -> str:
    status = pod.get('status') or {}
    ips = status.get('podIPs') or ()
    return (ips[0].get('ip') if ips else status.get('podIP')) or NONE


def _readiness_gates(pod: Obj, _now: datetime) -> str:
    gates = (pod.get('spec') or {}).get('readinessGates') or ()
    if not gates:
        return NONE
    return f'{sum(condition_is(pod, gate.get("conditionType", "")) for gate in gates)}/{len(gates)}'


_COMPLETED = {'Succeeded': 'The pod has completed successfully.', 'Failed': 'The pod failed.'}


def row_conditions(pod: Obj) -> list[Obj]:
    """`kubectl get` can leave out rows that are completed."""
    phase = (pod.get('status') or {}).get('phase')
    if phase not in _COMPLETED:
        return []
    return [{'type': 'Completed', 'status': 'True', 'reason': phase, 'message': _COMPLETED[phase]}]


POD_COLUMNS = (
    Col('Ready', _ready, description='Containers that are ready, of all that should be.'),
    Col('Status', _status, description='State of the containers taken together.'),
    Col('Restarts', _restarts, description='How often containers were restarted, and when last.'),
    AGE,
    Col('IP', _ip, priority=1, description='Address of the pod.'),
    Col('Node', text('spec.nodeName', NONE), priority=1, description='Node that the pod is bound to.'),
    Col('Nominated Node', text('status.nominatedNodeName', NONE), priority=1, description='Node being cleared for it.'),
    Col(
        'Readiness Gates', _readiness_gates, priority=1, description='Extra conditions met, of all that are asked for.'
    ),
)
