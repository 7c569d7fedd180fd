"""A rollout under any lag, failure and change of size stays within its bounds and arrives."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kcontrol.controllers.deployment import rollout
from kcontrol.controllers.deployment.plan import View, next_status, plan
from kcore.meta.patch import merge_patch

BOUND = st.one_of(st.integers(0, 6), st.integers(0, 100).map(lambda p: f'{p}%'))


class World:
    """A Deployment, its ReplicaSets, and pods that come and go when chance says so."""

    def __init__(self, replicas: int, surge, unavailable, now) -> None:
        self.now, self.uids = now, 0
        self.sets: dict[str, dict] = {}
        self.deployment = {
            'metadata': {'name': 'web', 'namespace': 'default', 'uid': 'd', 'generation': 1},
            'spec': {
                'replicas': replicas, 'selector': {'matchLabels': {'app': 'web'}}, 'revisionHistoryLimit': 2,
                'progressDeadlineSeconds': 600,
                'strategy': {
                    'type': 'RollingUpdate', 'rollingUpdate': {'maxSurge': surge, 'maxUnavailable': unavailable}
                },
                'template': {'metadata': {'labels': {'app': 'web'}}, 'spec': {'image': 0}},
            },
        }  # fmt: skip

    def step(self) -> bool:
        """One pass of the controller; True when it wrote something."""
        view = View(self.deployment, tuple(self.sets.values()))
        decided = plan(view)
        if decided.update_new:
            name = view.new['metadata']['name']
            self.sets[name] = merge_patch(self.sets[name], decided.update_new)
        if decided.create:
            self._create(decided.create)
        if decided.revision:
            note = {'metadata': {'annotations': {'deployment.kubernetes.io/revision': decided.revision}}}
            self.deployment = merge_patch(self.deployment, note)
        for scale in decided.scale:
            name = scale.rs['metadata']['name']
            change = {'metadata': {'annotations': scale.annotations}, 'spec': {'replicas': scale.replicas}}
            self.sets[name] = merge_patch(self.sets[name], change)
        for rs in decided.delete:
            del self.sets[rs['metadata']['name']]
        before = self.deployment.get('status')
        status = next_status(View(self.deployment, view.sets), self.now, decided.note)
        self.deployment = {**self.deployment, 'status': status}
        wrote = decided.update_new or decided.create or decided.revision or decided.scale or decided.delete
        return bool(wrote) or before != status

    def _create(self, rs: dict) -> None:
        self.uids += 1
        stamp = (self.now + timedelta(seconds=self.uids)).strftime('%Y-%m-%dT%H:%M:%SZ')
        meta = {**rs['metadata'], 'uid': f'rs{self.uids}', 'creationTimestamp': stamp, 'generation': 1}
        assert meta['name'] not in self.sets
        self.sets[meta['name']] = {**rs, 'metadata': meta, 'status': {'replicas': 0}}

    def pods_move(self, chance) -> None:
        """ReplicaSet controllers and pods catch up by a random amount; victims are unavailable pods first."""
        for name, rs in self.sets.items():
            status = rs['status']
            have, available = status['replicas'], status.get('availableReplicas', 0)
            goal = rs['spec']['replicas']
            if have != goal and chance.random() < 0.7:
                have = goal
                available = min(available, have)
            if available < have and chance.random() < 0.7:
                available += chance.randint(1, have - available)
            fresh = {'replicas': have, 'availableReplicas': available, 'readyReplicas': available,
                     'observedGeneration': 1}  # fmt: skip
            self.sets[name] = {**rs, 'status': fresh}

    @property
    def total(self) -> int:
        return rollout.total(self.sets.values())

    @property
    def available(self) -> int:
        """Pods that stay available whatever the ReplicaSet controllers do about the present sizes."""
        return sum(min(rs['spec']['replicas'], rs['status'].get('availableReplicas', 0)) for rs in self.sets.values())


def settle(world: World, chance) -> None:
    for _ in range(500):
        wrote = world.step()
        before = [rs['status'] for rs in world.sets.values()]
        world.pods_move(chance)
        if not wrote and before == [rs['status'] for rs in world.sets.values()]:
            goal = world.deployment['spec']['replicas']
            if world.total == goal == world.available:
                return
    raise AssertionError(f'does not arrive: {world.deployment["status"]} {[rs["spec"] for rs in world.sets.values()]}')


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    replicas=st.integers(0, 25), surge=BOUND, unavailable=BOUND, chance=st.randoms(use_true_random=False),
    rollouts=st.integers(1, 4),
)  # fmt: skip
def test_a_rolling_update_never_leaves_its_bounds_and_arrives(  # noqa: PLR0917
    replicas, surge, unavailable, chance, rollouts, now
):
    world = World(replicas, surge, unavailable, now)
    settle(world, chance)
    extra, missing = rollout.bounds(world.deployment)
    for image in range(1, rollouts + 1):
        template = merge_patch(world.deployment['spec']['template'], {'spec': {'image': image % 3}})
        world.deployment['spec']['template'] = template
        for _ in range(chance.randint(0, 12)):  # the next rollout may begin in the middle of this one
            before = world.available
            world.step()
            assert world.total <= replicas + extra
            assert world.available >= min(before, replicas - missing)
            world.pods_move(chance)
    settle(world, chance)
    new = View(world.deployment, tuple(world.sets.values())).new
    assert new['spec']['replicas'] == replicas
    assert len(world.sets) <= 3, 'history is limited to two old sets'
    assert not world.step(), 'a second pass writes nothing'


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    replicas=st.integers(1, 30), resized=st.integers(0, 60), surge=BOUND, chance=st.randoms(use_true_random=False),
)  # fmt: skip
def test_resizing_in_the_middle_of_a_rollout_is_spread_and_arrives(replicas, resized, surge, chance, now):
    world = World(replicas, surge, '25%', now)
    settle(world, chance)
    world.deployment['spec']['template'] = merge_patch(world.deployment['spec']['template'], {'spec': {'image': 1}})
    for _ in range(chance.randint(0, 6)):
        world.step()
        world.pods_move(chance)
    world.deployment['spec']['replicas'] = resized
    world.step()
    extra, _ = rollout.bounds(world.deployment)
    assert world.total <= max(resized + extra, 0)
    settle(world, chance)


@given(
    goal=st.integers(0, 100), sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5), old_goal=st.integers(1, 100)
)
def test_proportional_scaling_uses_up_exactly_what_is_allowed(goal, sizes, old_goal):
    rolling = {'type': 'RollingUpdate', 'rollingUpdate': {'maxSurge': 3, 'maxUnavailable': 0}}
    deployment = {'metadata': {'name': 'd'}, 'spec': {'replicas': goal, 'strategy': rolling}}
    marks = {'deployment.kubernetes.io/max-replicas': str(old_goal)}
    sets = [{'metadata': {'name': f's{i}', 'annotations': marks}, 'spec': {'replicas': n}} for i, n in enumerate(sizes)]
    spread = rollout.proportional(deployment, sets[0], sets[1:])
    assert all(n >= 0 for n in spread.values())
    allowed = goal + 3 if goal else 0
    assert sum(spread.values()) == allowed or (not sum(spread.values()) and not goal)
