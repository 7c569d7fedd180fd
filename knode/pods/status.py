"""`status` of a pod as the API shows it, a pure function of the view. Source: kubelet_pods.go, status/generate.go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from kcore.meta.times import format_time
from knode.pods.model import Kind, Obj, View, containers_of
from knode.pods.phase import phase
from knode.pods.plan import resized, restarts, resume_at
from knode.pods.resources import qos_class
from knode.runtime.driver import NS, Record

RUNTIME = 'process'
TERMINAL = frozenset({'Succeeded', 'Failed'})


NOT_FOUND = {
    'exitCode': 137, 'reason': 'ContainerStatusUnknown', 'startedAt': None, 'finishedAt': None,
    'message': 'The container could not be located when the pod was terminated',
}  # fmt: skip
"""End of a container that was never started, in a pod that has ended."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pod runs and since when."""

    pod_ip: str
    host_ip: str
    start_time: str
    messages: Mapping[str, str]
    """Termination messages by container id."""
    told: Mapping[str, Any] | None = None
    """The status computed before this one; the API's copy may lag behind it."""


def status(view: View, place: Place) -> dict[str, Any]:
    """The whole status; conditions of other writers are kept from the pod."""
    view = _settled(view)
    old: Obj = view.pod.get('status') or {}
    lists: dict[str, list[dict[str, Any]]] = {'init': [], 'main': [], 'ephemeral': []}
    for c, kind in containers_of(view.spec):
        lists['init' if kind == 'sidecar' else kind].append(_container(view, place, c, kind))
    now = phase(view)
    result: dict[str, Any] = {
        'phase': now,
        'conditions': _conditions(view, place, now, lists),
        'hostIP': place.host_ip,
        'hostIPs': [{'ip': place.host_ip}],
        'startTime': old.get('startTime') or place.start_time,
        'containerStatuses': lists['main'],
        'qosClass': old.get('qosClass') or qos_class(view.spec),
        'reason': view.verdict.reason if view.verdict and now == 'Failed' else None,
        'message': view.verdict.message if view.verdict and now == 'Failed' else None,
    }
    if place.pod_ip:
        result |= {'podIP': place.pod_ip, 'podIPs': [{'ip': place.pod_ip}]}
    if view.verdict is not None and view.verdict.refused:
        del result['containerStatuses']
        return result
    if lists['init']:
        result['initContainerStatuses'] = lists['init']
    if lists['ephemeral']:
        result['ephemeralContainerStatuses'] = lists['ephemeral']
    return result


def _settled(view: View) -> View:
    """Without containers whose postStart hook is under way: they count as running only after it."""
    if not view.hooked or view.grace_s is not None or view.verdict is not None:
        return view
    return replace(
        view, records={n: [r for r in rs if r.finished_ns or r.id not in view.hooked] for n, rs in view.records.items()}
    )


def _container(view: View, place: Place, c: Obj, kind: Kind) -> dict[str, Any]:
    records = view.records.get(c['name'], ())
    latest = records[-1] if records else None
    previous = records[-2] if len(records) > 1 else None
    state, last = _states(view, place, c, kind, latest=latest, previous=previous)
    if latest is None and kind == 'main' and phase(view) in {'Succeeded', 'Failed'} and _has_initialized(view):
        state = {'terminated': NOT_FOUND}
    checks = view.check(latest)
    running = latest is not None and latest.running
    ready = running and checks.started and checks.ready
    if kind == 'init':
        ready = latest is not None and bool(latest.finished_ns) and latest.exit_code == 0
    result = {
        'name': c['name'],
        'image': c['image'],
        'imageID': str(latest.meta.get('image_id', '')) if latest else '',
        'containerID': f'{RUNTIME}://{latest.id}' if latest else '',
        'state': state,
        'lastState': last,
        'ready': ready,
        'started': running and (kind == 'init' or checks.started),
        'restartCount': latest.attempt if latest else 0,
    }
    if mounts := c.get('volumeMounts'):
        result['volumeMounts'] = [_mount(m, latest) for m in mounts]
    if latest is not None and kind != 'ephemeral':
        result['resources'] = latest.meta.get('resources', c.get('resources') or {})
        if requests := (c.get('resources') or {}).get('requests'):
            result['allocatedResources'] = requests
    if latest is not None and (user := latest.meta.get('user')):
        result['user'] = {'linux': user}
    return result


def _has_initialized(view: View) -> bool:
    """From here on a container of which nothing is known counts as one that failed."""
    inits = [view.latest(c['name']) for c, k in containers_of(view.spec) if k == 'init']
    return all(r is not None and r.finished_ns and not r.exit_code for r in inits)


def _mount(m: Obj, latest: Record | None) -> dict[str, Any]:
    found = {'name': m['name'], 'mountPath': m['mountPath']}
    if not m.get('readOnly'):
        return found
    wish = m.get('recursiveReadOnly', 'Disabled')
    deep = wish == 'Enabled' or (wish == 'IfPossible' and latest is not None and 'mounts' in latest.meta)
    return {**found, 'readOnly': True, 'recursiveReadOnly': 'Enabled' if deep else 'Disabled'}


def _states(
    view: View, place: Place, c: Obj, kind: Kind, *, latest: Record | None, previous: Record | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    last = {'terminated': _terminated(place, previous)} if previous else {}
    wait = view.waits.get(c['name'])
    if latest is None or (wait is not None and not latest.running):
        return _never_started(view, c, kind), {'terminated': _terminated(place, latest)} if latest else {}
    if latest.running:
        return {'running': {'startedAt': _time(latest.started_ns)}}, last
    ended = {'terminated': _terminated(place, latest)}
    ending = view.grace_s is not None or view.verdict is not None
    if ending or not restarts(view, latest, kind):
        return ended, last
    if kind in {'main', 'sidecar', 'init'} and resume_at(latest) > view.now:
        return {'waiting': {'reason': 'CrashLoopBackOff', 'message': backoff_message(view.pod, latest)}}, ended
    if latest.reason == 'StartError':
        return {'waiting': {'reason': 'RunContainerError', 'message': latest.message}}, ended
    if why := latest.meta.get('post_start_error'):
        return {'waiting': {'reason': 'PostStartHookError', 'message': why}}, ended
    return ended, last


def backoff_message(pod: Obj, record: Record) -> str:
    meta = pod['metadata']
    pause = _duration(float(record.meta.get('backoff_s', 0)))
    pod_name = f'{meta["name"]}_{meta["namespace"]}({meta["uid"]})'
    return f'back-off {pause} restarting failed container={record.name} pod={pod_name}'


def _duration(seconds: float) -> str:
    """As Go prints it: `10s`, `1m20s`, `5m0s`."""
    whole = int(seconds)
    return f'{whole // 60}m{whole % 60}s' if whole >= 60 else f'{whole}s'


def _never_started(view: View, c: Obj, kind: Kind) -> dict[str, Any]:
    wait = view.waits.get(c['name'])
    if wait is not None:
        waiting = {'reason': wait.reason}
        if wait.message:
            waiting['message'] = wait.message
        return {'waiting': waiting}
    before = [x for x, k in containers_of(view.spec) if k in {'init', 'sidecar'} and x is not c]
    if (kind == 'main' and before) or (
        kind in {'init', 'sidecar'} and before and before[0] is not c and _earlier(view, c)
    ):
        return {'waiting': {'reason': 'PodInitializing'}}
    return {'waiting': {'reason': 'ContainerCreating' if kind in {'main', 'ephemeral'} else 'PodInitializing'}}


def _earlier(view: View, c: Obj) -> bool:
    return (view.spec.get('initContainers') or [c])[0] is not c


def _terminated(place: Place, r: Record) -> dict[str, Any]:
    result: dict[str, Any] = {
        'exitCode': r.exit_code,
        'reason': str(r.meta.get('reason') or r.reason),
        'startedAt': _time(r.started_ns) if r.started_ns else '1970-01-01T00:00:00Z',
        'finishedAt': _time(r.finished_ns),
        'containerID': f'{RUNTIME}://{r.id}',
    }
    if message := place.messages.get(r.id) or r.message:
        result['message'] = message
    return result


def _time(ns: int) -> str:
    return format_time(datetime.fromtimestamp(ns / NS, UTC))


OWN_CONDITIONS = (
    'PodReadyToStartContainers',
    'Initialized',
    'Ready',
    'ContainersReady',
    'PodScheduled',
    'DisruptionTarget',
    'PodResizePending',
    'PodResizeInProgress',
)
"""What we said last counts, not the API's copy, which lags: two versions would answer each other for ever."""
RESIZES = frozenset({'PodResizePending', 'PodResizeInProgress'})


def _conditions(
    view: View, place: Place, now_phase: str, lists: Mapping[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    previous = {c['type']: c for c in (view.pod.get('status') or {}).get('conditions') or ()}
    previous |= {c['type']: c for c in (place.told or {}).get('conditions') or () if c['type'] in OWN_CONDITIONS}
    stamp = format_time(datetime.fromtimestamp(view.now, UTC))
    found = {
        'PodReadyToStartContainers': (bool(view.sandbox), '', ''),
        'Initialized': _initialized(view, now_phase, lists['init']),
        'ContainersReady': _containers_ready(view, 'Failed' if view.verdict else now_phase, lists),
    }
    found['Ready'] = _ready(view, previous, found['ContainersReady'])
    found['PodScheduled'] = (True, '', '')
    if view.verdict is not None and view.verdict.disruption:
        text = view.verdict.disruption_message or view.verdict.message
        found['DisruptionTarget'] = (True, view.verdict.disruption, text)
    found |= _resizes(view)
    result = []
    for kind, (good, reason, message) in found.items():
        value = 'True' if good else 'False'
        before = previous.pop(kind, None)
        same = before is not None and before.get('status') == value
        condition: dict[str, Any] = {'type': kind, 'status': value, 'lastProbeTime': None}
        condition['lastTransitionTime'] = before['lastTransitionTime'] if same and before else stamp
        # None takes what the API has: a condition that holds again must not keep the reason for which it did not.
        result.append(condition | {'reason': reason or None, 'message': message or None})
    return result + [c for kind, c in previous.items() if kind not in RESIZES]


def _resizes(view: View) -> dict[str, tuple[bool, str, str]]:
    """They are there while they hold, and otherwise not at all."""
    found: dict[str, tuple[bool, str, str]] = {}
    if view.pending is not None:
        found['PodResizePending'] = (True, view.pending.reason, view.pending.message)
    under_way = (
        resized(c, r) for c, k in containers_of(view.spec)
        if k != 'ephemeral' and (r := view.latest(c['name'])) is not None and r.running
    )  # fmt: skip
    if any(under_way):
        found['PodResizeInProgress'] = (True, 'Error' if view.resize_error else '', view.resize_error)
    return found


def obsolete(pod: Obj, now: Obj) -> list[str]:
    """Types of conditions that the API's pod has and that do not hold any more."""
    present = {c['type'] for c in (pod.get('status') or {}).get('conditions') or () if c['type'] in RESIZES}
    return sorted(present - {c['type'] for c in now.get('conditions') or ()}) if present else []


def _initialized(view: View, now_phase: str, inits: list[dict[str, Any]]) -> tuple[bool, str, str]:
    if now_phase == 'Succeeded':
        return True, 'PodCompleted', ''
    if any(view.latest(c['name']) for c in view.spec['containers']):
        return True, '', ''
    sidecars = {c['name'] for c, k in containers_of(view.spec) if k == 'sidecar'}
    missing = [s['name'] for s in inits if not (s['started'] if s['name'] in sidecars else s['ready'])]
    if missing:
        return False, 'ContainersNotInitialized', f'containers with incomplete status: [{" ".join(missing)}]'
    return True, '', ''


def _containers_ready(view: View, now_phase: str, lists: Mapping[str, list[dict[str, Any]]]) -> tuple[bool, str, str]:
    """Sidecars count as the others do."""
    if now_phase in {'Succeeded', 'Failed'}:
        return False, f'Pod{"Completed" if now_phase == "Succeeded" else "Failed"}', ''
    sidecars = {c['name'] for c, k in containers_of(view.spec) if k == 'sidecar'}
    lasting = [*(s for s in lists['init'] if s['name'] in sidecars), *lists['main']]
    unready = [s['name'] for s in lasting if not s['ready']]
    if unready:
        return False, 'ContainersNotReady', f'containers with unready status: [{" ".join(unready)}]'
    return True, '', ''


def _ready(view: View, previous: Mapping[str, Obj], containers: tuple[bool, str, str]) -> tuple[bool, str, str]:
    if not containers[0]:
        return containers
    problems = []
    for gate in view.spec.get('readinessGates') or ():
        kind = gate['conditionType']
        if kind not in previous:
            problems.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif (said := previous[kind].get('status')) != 'True':
            problems.append(f'the status of pod readiness gate "{kind}" is not "True", but {said}')
    return not problems, 'ReadinessGatesNotReady' if problems else '', ', '.join(problems)
