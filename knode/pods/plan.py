"""What to do about a pod: a pure function of what is wanted and what is observed.

Theory: no memory but the records, which live as long as the pod's directory; so an agent that starts afresh decides
as one that never stopped. The pause before a restart doubles with each attempt from 10 s to 300 s (the first restart
is immediate) and starts over after a run of ten minutes. Init containers run one after another in each new sandbox;
sidecars are init containers that have only to have *started*. Main containers start in order, each when the postStart
hook of the one before is done; ephemeral ones at once. Source: kuberuntime_manager.go computePodActions,
client-go util/flowcontrol/backoff.go.
"""

from __future__ import annotations

from knode.pods.model import (
    Action,
    CloseSandbox,
    Decision,
    Kind,
    Obj,
    OpenSandbox,
    Resize,
    Start,
    Stop,
    View,
    containers_of,
)
from knode.runtime.driver import Record

BACKOFF_BASE_S = 10.0
BACKOFF_CAP_S = 300.0
BACKOFF_RESET_S = 600.0
"""A run that lasted this long is forgiven what came before it."""


def decide(view: View) -> Decision:
    if view.grace_s is not None or view.verdict is not None or finished(view):
        return _end(view)
    starts, wakes = _wanted(view)
    if starts and not view.sandbox:
        return Decision((OpenSandbox(),))
    stops = _unwell(view)
    return Decision((*stops, *starts), min(wakes, default=None))


def _end(view: View) -> Decision:
    """Sidecars outlive the main containers and go in reverse order; then the sandbox goes. All hooks run at once."""
    grace = view.grace_s
    if grace is None and view.verdict is not None:
        grace = view.verdict.grace_s
    if grace is None:
        grace = float(view.spec.get('terminationGracePeriodSeconds', 30))
    kinds = containers_of(view.spec)
    running = {r.name: r for r in view.running()}
    first = [r for c, k in kinds if k != 'sidecar' and (r := running.get(c['name']))]
    last = [r for c, k in reversed(kinds) if k == 'sidecar' and (r := running.get(c['name']))]
    known = {c['name'] for c, _ in kinds}
    first += [r for name, r in running.items() if name not in known]
    targets = first or last[:1]
    if targets:
        order = [(r, False) for r in targets] + [(r, True) for r in last if r not in targets]
        return Decision(tuple(Stop(r, grace, f'Stopping container {r.name}', held=held) for r, held in order))
    if view.sandbox:
        return Decision((CloseSandbox(),))
    return Decision(done=view.grace_s is not None)


def finished(view: View) -> bool:
    """Nothing of the pod will run again by its restart policy. Sidecars do not count."""
    if view.restart_policy == 'Never':
        for c, kind in containers_of(view.spec):
            r = view.latest(c['name'])
            if kind == 'init' and r is not None and r.finished_ns and r.exit_code:
                return True
    mains = [view.latest(c['name']) for c in view.spec['containers']]
    return all(r is not None and r.finished_ns and not restarts(view, r, 'main') for r in mains)


def restarts(view: View, record: Record, kind: Kind) -> bool:
    """Whether a finished attempt is followed by another."""
    if kind == 'ephemeral':
        return False
    if kind == 'sidecar' or record.meta.get('replaced'):
        return True
    policy = view.restart_policy
    if kind == 'init':
        return record.exit_code != 0 and policy != 'Never'
    return policy == 'Always' or (policy == 'OnFailure' and record.exit_code != 0)


def resume_at(record: Record) -> float:
    """Wall seconds before which a finished container is not started again."""
    if record.ran_s >= BACKOFF_RESET_S:
        return 0.0
    return record.finished_s + float(record.meta.get('backoff_s', 0.0))


def next_backoff(record: Record | None) -> float:
    """The pause that the attempt after `record` earns by ending."""
    if record is None:
        return 0.0
    before = float(record.meta.get('backoff_s', 0.0))
    if before == 0.0 or record.ran_s >= BACKOFF_RESET_S:
        return BACKOFF_BASE_S
    return min(2 * before, BACKOFF_CAP_S)


def _wanted(view: View) -> tuple[list[Action], list[float]]:
    """Containers to start now, and the times at which others come due."""
    starts: list[Action] = []
    wakes: list[float] = []
    needed = _needs_init(view)
    kinds = containers_of(view.spec)
    for c, kind in kinds:  # they wait for nobody: what holds the others up may be what they are to look into
        r = view.latest(c['name'])
        if kind == 'ephemeral' and (r is None or (not r.running and not r.finished_ns)):
            _consider(view, c, kind, starts, wakes)
    for c, kind in kinds:
        if kind == 'ephemeral':
            continue
        r = view.latest(c['name'])
        stale = r is not None and r.meta.get('sandbox') != view.sandbox
        if kind == 'init':
            if not needed or (r is not None and r.finished_ns and not r.exit_code and not stale):
                continue
            if r is None or not r.running:
                _consider(view, c, kind, starts, wakes)
            break  # what follows waits for it
        if r is not None and (r.running or (r.finished_ns and not restarts(view, r, kind))):
            if r.running and ((kind == 'sidecar' and not view.check(r).started) or r.id in view.hooked):
                break
            continue
        before = len(starts)
        _consider(view, c, kind, starts, wakes)
        if kind == 'sidecar' and (len(starts) > before or r is None or not r.running):
            break
        if len(starts) > before and (c.get('lifecycle') or {}).get('postStart'):
            break  # the containers after it are started when its hook is done
    return starts, wakes


def _needs_init(view: View) -> bool:
    """Init containers run while no main container has started in this sandbox."""
    mains = [view.latest(c['name']) for c in view.spec['containers']]
    return not any(r is not None and r.meta.get('sandbox') == view.sandbox for r in mains)


def _consider(view: View, container: Obj, kind: Kind, starts: list[Action], wakes: list[float]) -> None:
    name = container['name']
    r = view.latest(name)
    if r is not None and resized(container, r):  # what it failed for may have been just that
        due, backoff_s = 0.0, next_backoff(None)
    else:
        due, backoff_s = resume_at(r) if r is not None else 0.0, next_backoff(r)
    wait = view.waits.get(name)
    if wait is not None:
        due = max(due, wait.retry_at)
    if due > view.now:
        wakes.append(due)
        return
    starts.append(Start(container, kind, r.attempt + 1 if r is not None else 0, backoff_s))


def _unwell(view: View) -> list[Action]:
    """Running containers that a probe or a hook has condemned, or whose image or resources have been changed."""
    stops: list[Action] = []
    for c, kind in containers_of(view.spec):
        r = view.latest(c['name'])
        if r is None or not r.running or r.stopping or kind == 'ephemeral':
            continue
        grace = float(view.spec.get('terminationGracePeriodSeconds', 30))
        checks = view.check(r)
        if why := checks.failed:
            probe = c.get('livenessProbe' if checks.started else 'startupProbe') or {}
            stops.append(Stop(r, float(probe.get('terminationGracePeriodSeconds') or grace), why))
        elif 'post_start_error' in r.meta:
            stops.append(Stop(r, grace, 'FailedPostStartHook', prestop=False))
        elif r.meta.get('image', c['image']) != c['image']:
            text = f'Container {r.name} definition changed, will be restarted'
            stops.append(Stop(r, grace, text, replaces=True))
        elif (changed := resized(c, r)) and changed & _needs_restart(c):
            stops.append(Stop(r, grace, f'Container {r.name} resize requires restart', replaces=True))
        elif changed:
            stops.append(Resize(r, c))
    return stops


def resized(c: Obj, r: Record) -> set[str]:
    """Names of the resources of which the container has something else than it should have now."""
    given, wanted = r.meta.get('resources'), c.get('resources') or {}
    if given is None or given == wanted:
        return set()
    sides = [(given.get(side) or {}, wanted.get(side) or {}) for side in ('requests', 'limits')]
    return {name for a, b in sides for name in a.keys() | b.keys() if a.get(name) != b.get(name)}


def _needs_restart(c: Obj) -> set[str]:
    policies = c.get('resizePolicy') or ()
    return {p['resourceName'] for p in policies if p.get('restartPolicy') == 'RestartContainer'}
