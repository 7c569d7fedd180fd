"""Leader election: one leader, hand-over within the lease, fencing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kclient.election import LeaderElector, Observer, Timing, claim
from kclient.errors import Deposed, NotFound

QUICK = Timing(0.6, 0.4, 0.05)
NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def elector(client, env, identity: str) -> LeaderElector:
    return LeaderElector(client, env, 'lock', 'kube-system', identity, timing=QUICK)


def leading(log: list, who: str):
    async def lead() -> None:
        log.append(f'{who} starts')
        try:
            await asyncio.Event().wait()
        finally:
            log.append(f'{who} stops')

    return lead


@pytest.fixture
async def running():
    tasks: list[asyncio.Task] = []

    def start(coro) -> asyncio.Task:
        tasks.append(asyncio.ensure_future(coro))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_clean_stop_hands_over_at_once_and_only_after_the_work_ended(api, client, env, running, until):
    log: list[str] = []
    a, b = elector(client, env, 'a'), elector(client, env, 'b')
    task = running(a.run(leading(log, 'a')))
    await until(lambda: 'a starts' in log)
    running(b.run(leading(log, 'b')))
    await until(lambda: b.holder == 'a')
    task.cancel()
    await until(lambda: 'b starts' in log)
    assert log == ['a starts', 'a stops', 'b starts']
    lease = api.one('leases', 'lock', 'kube-system')
    assert lease['spec']['holderIdentity'] == 'b'
    assert lease['spec']['leaseTransitions'] >= 1


async def test_a_leader_that_cannot_renew_stops_before_another_may_start(api, client, env, running, until):
    log: list[str] = []
    a = elector(client, env, 'a')
    running(a.run(leading(log, 'a')))
    await until(lambda: 'a starts' in log)
    renewed = api.one('leases', 'lock', 'kube-system')['spec']['renewTime']
    assert a.leading
    api.fail_next.extend([(500, {})] * 100)
    await until(lambda: 'a stops' in log)
    assert not a.leading
    with pytest.raises(Deposed):
        a.check()
    assert api.one('leases', 'lock', 'kube-system')['spec']['renewTime'] >= renewed
    api.fail_next.clear()
    await until(lambda: log.count('a starts') == 2)


async def test_a_lease_of_a_dead_holder_is_taken_after_its_duration(api, client, env, running, until):
    log: list[str] = []
    dead = claim({'metadata': {'name': 'lock', 'namespace': 'kube-system'}}, 'dead', QUICK, NOW)
    api.put('leases', dead)
    b = elector(client, env, 'b')
    running(b.run(leading(log, 'b')))
    await until(lambda: 'b starts' in log)
    assert api.one('leases', 'lock', 'kube-system')['spec']['leaseTransitions'] == 1


async def test_a_failure_of_the_work_ends_the_election_and_frees_the_lease(api, client, env):
    async def lead() -> None:
        raise RuntimeError('broken')

    with pytest.raises(RuntimeError, match='broken'):
        await elector(client, env, 'a').run(lead)
    assert api.one('leases', 'lock', 'kube-system')['spec']['holderIdentity'] == ''


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=30))
def test_a_candidate_never_takes_a_lease_that_was_renewed_within_its_duration(steps):
    timing, now, renewals = Timing(), 0.0, 0
    observer, last = Observer('me', timing), 0.0
    lease = {'spec': {'holderIdentity': 'other', 'renewTime': '0', 'leaseDurationSeconds': 15}}
    observer.observe(lease, now)
    for wait, renew in steps:
        now += wait
        if renew:
            renewals += 1
            lease = {'spec': {**lease['spec'], 'renewTime': str(renewals)}}
            last = now
        observer.observe(lease, now)
        assert observer.may_take(lease, now) == (now - last > 15)


def test_timing_without_a_margin_is_refused():
    with pytest.raises(ValueError, match='lease_duration_s'):
        Timing(10, 10, 2)
    with pytest.raises(ValueError, match='renew_deadline_s'):
        Timing(15, 2, 2)


def test_a_claim_counts_transitions_and_keeps_foreign_fields():
    lease = {'metadata': {'resourceVersion': '1'}, 'spec': {'holderIdentity': 'x', 'leaseTransitions': 3, 'foo': 1}}
    spec = claim(lease, 'me', Timing(), NOW)['spec']
    assert spec == {
        'holderIdentity': 'me', 'leaseTransitions': 4, 'foo': 1, 'leaseDurationSeconds': 15,
        'acquireTime': '2026-01-02T03:04:05.000006Z', 'renewTime': '2026-01-02T03:04:05.000006Z',
    }  # fmt: skip
    again = claim({**lease, 'spec': spec}, 'me', Timing(), NOW)['spec']
    assert again['leaseTransitions'] == 4


async def test_a_candidate_that_comes_before_its_api_does_not_wait_a_whole_retry_period(env, running, until):
    from kclient.errors import Unavailable, failure

    class Late:
        """Refuses three times, then has no lease yet."""

        refused = 0

        async def get(self, *_):
            if self.refused < 3:
                self.refused += 1
                raise Unavailable(failure(503, 'ServiceUnavailable', 'connection refused'))
            raise NotFound(failure(404, 'NotFound', 'no lease'))

        async def create(self, _, obj):
            return obj

        async def update(self, _, obj):
            return obj

    slow = Timing(3000.0, 2000.0, 1000.0)
    candidate = LeaderElector(Late(), env, 'lock', 'kube-system', 'a', timing=slow)
    log: list[str] = []
    running(candidate.run(leading(log, 'a')))
    await until(lambda: log == ['a starts'])
