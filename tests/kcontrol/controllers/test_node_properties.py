"""Node lifecycle and pod garbage collection: rules that hold for whatever nodes and pods there are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kcontrol.controllers.nodelifecycle import plan as nodes
from kcontrol.controllers.podgc import plan as podgc
from tests.kcontrol.conftest import NOW

STATUS = st.sampled_from(['True', 'False', 'Unknown'])
# Condition → its taint by the condition's status, as users read them in the documentation of taints.
SAID_BY = {
    'Ready': {'False': 'node.kubernetes.io/not-ready', 'Unknown': 'node.kubernetes.io/unreachable'},
    'MemoryPressure': {'True': 'node.kubernetes.io/memory-pressure'},
    'DiskPressure': {'True': 'node.kubernetes.io/disk-pressure'},
    'PIDPressure': {'True': 'node.kubernetes.io/pid-pressure'},
    'NetworkUnavailable': {'True': 'node.kubernetes.io/network-unavailable'},
}
CORDONED = 'node.kubernetes.io/unschedulable'
EVICTING = {(key, 'NoExecute') for key in SAID_BY['Ready'].values()}
OURS = {key for keys in SAID_BY.values() for key in keys.values()} | {CORDONED}
TAINTS = st.lists(
    st.tuples(st.sampled_from([*sorted(OURS), 'team']), st.sampled_from(['NoSchedule', 'NoExecute'])),
    max_size=6, unique=True,
)  # fmt: skip


def node(conditions: dict, taints=(), *, zone: str = '', cordoned: bool = False) -> dict:
    return {
        'metadata': {'name': 'n', 'labels': {'topology.kubernetes.io/zone': zone}},
        'spec': {'taints': [{'key': k, 'effect': e} for k, e in taints], 'unschedulable': cordoned},
        'status': {'conditions': [{'type': kind, 'status': status} for kind, status in conditions.items()]},
    }


def tainted(one: dict) -> set[tuple[str, str]]:
    return {(t['key'], t['effect']) for t in one['spec']['taints']}


def judged(one: dict, eviction: nodes.Eviction) -> dict:
    """The node after one look."""
    wanted = nodes.wanted_taints(one, eviction, NOW)
    return one if wanted is None else {**one, 'spec': {**one['spec'], 'taints': wanted}}


@given(
    st.fixed_dictionaries({'Ready': STATUS}, optional=dict.fromkeys([*SAID_BY][1:], STATUS)),
    TAINTS, st.booleans(), st.sampled_from(['now', 'later', 'never']),
)  # fmt: skip
def test_taints_say_what_the_conditions_say_and_the_next_look_writes_nothing(conditions, taints, cordoned, eviction):
    before = node(conditions, taints, cordoned=cordoned)
    after = judged(before, eviction)
    said = {SAID_BY[kind][s] for kind, s in conditions.items() if s in SAID_BY[kind]} | (
        {CORDONED} if cordoned else set()
    )
    assert {k for k, effect in tainted(after) if effect == 'NoSchedule'} - {'team'} == said
    assert {t for t in tainted(after) if t[0] == 'team'} == {t for t in taints if t[0] == 'team'}
    evicts = {k for k, effect in tainted(after) if effect == 'NoExecute'} - {'team'}
    due = eviction == 'now' or (eviction == 'later' and EVICTING & {*taints})
    why = SAID_BY['Ready'].get(conditions['Ready'])
    assert evicts == ({why} if due and why else set())
    assert nodes.wanted_taints(after, eviction, NOW) is None, 'nothing changed, nothing is written'


def look(cluster: dict[str, dict], limiter: nodes.Limiter, now: float) -> dict[str, dict]:
    """The cluster after one pass of the monitor."""
    held = [*cluster.values()]
    down, rates = nodes.all_down(held), nodes.eviction_rates(held)
    return {
        name: judged(one, nodes.eviction_of(one, down, limiter, rates, now)) for name, one in cluster.items()
    }  # fmt: skip


def evicting(cluster: dict[str, dict]) -> set[str]:
    return {name for name, one in cluster.items() if tainted(one) & EVICTING}


def sick(cluster: dict[str, dict], zone: str) -> bool:
    """More than two of its nodes are not ready, and these are most, yet not all."""
    ready = [nodes.readiness(one) == 'True' for name, one in cluster.items() if name[0] == zone]
    return ready.count(False) > 2 and any(ready) and ready.count(False) >= 0.55 * len(ready)


@given(st.lists(st.tuples(st.integers(0, 12), st.lists(STATUS, min_size=8, max_size=8)), max_size=10))
def test_evictions_are_rare_never_begin_in_a_sick_zone_and_end_when_everything_is_down(looks):
    names = [f'{"ab"[n // 5]}{n}' for n in range(8)]
    cluster = {name: node({'Ready': 'True'}, zone=name[0]) for name in names}
    limiter, now, last = nodes.Limiter(), 0.0, dict.fromkeys('ab', float('-inf'))
    for pause, ready in looks:
        now += pause
        before = {
            name: {**node({'Ready': status}, zone=name[0]), 'spec': cluster[name]['spec']}
            for name, status in zip(names, ready, strict=True)
        }
        cluster = look(before, limiter, now)
        bad = {name for name, status in zip(names, ready, strict=True) if status != 'True'}
        if bad == {*names}:
            assert not evicting(cluster), 'it is rather the manager that is cut off'
            continue
        fresh = evicting(cluster) - evicting(before)
        assert evicting(before) & bad <= evicting(cluster) <= bad, 'who evicts goes on until it is ready'
        for zone in 'ab':
            began = [name for name in fresh if name[0] == zone]
            assert not began or (len(began) == 1 and now - last[zone] >= 1 / nodes.EVICTIONS_PER_S)
            assert not (began and sick(before, zone))
            last[zone] = now if began else last[zone]


# --- the pod garbage collector

PHASES = st.sampled_from(['Pending', 'Running', 'Succeeded', 'Failed', 'Evicted'])
# Nodes by name: one that lives, one that is gone, one out of service, and one that is said to be but answers.
PLACES = st.sampled_from(['lives', 'gone', 'out', 'answers', ''])
PODS = st.lists(st.tuples(PHASES, PLACES, st.booleans(), st.integers(0, 5)), max_size=12)


def pod(number: int, phase: str, place: str, going: bool, age: int) -> dict:
    meta = {'name': f'p{number:02}', 'uid': f'u{number}', 'creationTimestamp': f'2026-01-01T00:00:0{9 - age}Z'}
    evicted = {'phase': 'Failed', 'reason': 'Evicted'}
    return {
        'metadata': meta | ({'deletionTimestamp': '2026-01-01T00:01:00Z'} if going else {}),
        'spec': {'nodeName': place}, 'status': evicted if phase == 'Evicted' else {'phase': phase},
    }  # fmt: skip


def swept(pods: list[dict], threshold: int) -> dict[str, str]:
    """Uid → why it goes."""
    out = [(podgc.OUT_OF_SERVICE, 'NoExecute')]
    known = {'out': node({'Ready': 'Unknown'}, out), 'answers': node({'Ready': 'True'}, out),
             'lives': node({'Ready': 'False'})}  # fmt: skip
    names = [name for name, one in known.items() if podgc.is_out_of_service(one)]
    return {one.pod['metadata']['uid']: one.label for one in podgc.plan(pods, ['gone'], names, threshold)}


def finished(one: dict) -> bool:
    return one['status']['phase'] in {'Succeeded', 'Failed'}


@given(PODS, st.integers(0, 8), st.randoms(use_true_random=False))
def test_only_pods_that_nobody_else_will_end_or_that_are_too_many_are_removed(made, threshold, chance):
    pods = [pod(number, *one) for number, one in enumerate(made)]
    doomed = swept(pods, threshold)
    for one in pods:
        place, going = one['spec']['nodeName'], 'deletionTimestamp' in one['metadata']
        lost = place == 'gone' or (going and place in {'', 'out'})
        why = doomed.get(one['metadata']['uid'])
        assert why not in {None, 'terminated'} if lost else why in {None, 'terminated'}
        assert why != 'terminated' or finished(one)
    shuffled = chance.sample(pods, len(pods))
    assert swept(shuffled, threshold) == doomed
    assert not swept([p for p in pods if p['metadata']['uid'] not in doomed], threshold), 'once is enough'


@given(st.lists(st.tuples(PHASES, st.booleans(), st.integers(0, 5)), min_size=2, max_size=8), st.integers(0, 3))
def test_of_finished_pods_as_many_stay_as_may_and_the_evicted_and_the_oldest_go_first(made, threshold):
    pods = [pod(number, phase, 'lives', going, age) for number, (phase, going, age) in enumerate(made)]
    doomed = swept(pods, threshold)
    over = [p for p in pods if finished(p)]
    kept = [p for p in over if p['metadata']['uid'] not in doomed]
    assert len(kept) == (min(len(over), threshold) if threshold else len(over))
    gone = [p for p in over if p not in kept]
    for stays in kept:
        for goes in gone:
            evicted = 'reason' in goes['status'], 'reason' in stays['status']
            younger = goes['metadata']['creationTimestamp'] > stays['metadata']['creationTimestamp']
            assert evicted != (False, True)
            assert evicted == (True, False) or not younger
