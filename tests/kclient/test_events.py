"""Events are counted, combined and limited."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from kclient.events import (
    BURST,
    QUEUE_MAX,
    REFILL_PER_S,
    SENDERS,
    SIMILAR_WINDOW_S,
    Correlator,
    EventRecorder,
    Fact,
    Pace,
)  # fmt: skip

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
POD = {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'p', 'namespace': 'default', 'uid': '1'}}


def fact(message: str, name: str = 'p') -> Fact:
    return Fact({'kind': 'Pod', 'name': name, 'namespace': 'default'}, 'Normal', 'Why', message, NOW)


def test_the_same_event_again_is_a_count():
    correlator = Correlator('me', '')
    first = correlator.take(fact('x'), 0, 'aa')
    second = correlator.take(fact('x'), 1, 'bb')
    assert first[0] == second[0] == 'p.aa'
    assert (first[2], second[2]) == (1, 2)
    assert second[1]['count'] == 2


def test_many_different_messages_of_one_reason_are_combined():
    correlator = Correlator('me', '')
    taken = [correlator.take(fact(f'm{i}'), 0, str(i)) for i in range(11)]
    messages = [event['message'] for _, event, _ in taken]
    assert [(name, count) for name, _, count in taken[8:]] == [('p.8', 1), ('p.9', 1), ('p.9', 2)]
    assert messages[8] == 'm8'
    assert messages[9] == '(combined from similar events): m9'


def test_an_object_that_talks_too_much_is_silenced_alone():
    correlator = Correlator('me', '')
    sent = [correlator.take(fact('x'), 0, 'a') for _ in range(BURST + 5)]
    assert sent.count(None) == 5
    assert correlator.take(fact('x', name='q'), 0, 'a') is not None
    assert correlator.take(fact('x'), 301, 'a')[2] == BURST + 6, 'what was held back counts'


async def test_recorded_events_reach_the_api_and_are_counted_there(api, client, env, until):
    recorder = EventRecorder(client, env, 'me', 'host-1')
    task = asyncio.ensure_future(recorder.run())
    for _ in range(3):
        recorder.event(POD, 'Warning', 'BackOff', 'again')
    await until(lambda: api.all('events') and api.all('events')[0]['count'] == 3)
    (event,) = api.all('events')
    assert event['involvedObject'] == {
        'kind': 'Pod',
        'namespace': 'default',
        'name': 'p',
        'uid': '1',
        'apiVersion': 'v1',
    }
    assert (event['source'], event['type'], event['reason']) == (
        {'component': 'me', 'host': 'host-1'}, 'Warning', 'BackOff',
    )  # fmt: skip
    # The server forgot it (its time to live passed): the next one is a new event.
    api.remove('events', 'default', event['metadata']['name'])
    recorder.event(POD, 'Warning', 'BackOff', 'again')
    await until(lambda: api.all('events'))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_after_a_burst_events_go_at_their_pace_and_a_quiet_time_gives_another_burst():
    pace = Pace(per_s=10, burst=3)
    assert [round(pace.take(0.0), 6) for _ in range(5)] == [0, 0, 0, 0.1, 0.2]
    assert [round(pace.take(60.0), 6) for _ in range(4)] == [0, 0, 0, 0.1]
    assert {Pace().take(0.0) for _ in range(1000)} == {0.0}


async def test_the_recorder_keeps_to_its_pace(client, env, monkeypatch):
    waits = []
    monkeypatch.setattr('kclient.events.asyncio.sleep', lambda seconds: no_wait(waits, seconds))
    monkeypatch.setattr('kclient.events.SETTLE_S', 0)
    recorder = EventRecorder(client, env, 'me', pace=Pace(per_s=0.001, burst=2))
    for n in range(3):
        recorder.event(
            POD | {'metadata': {'name': f'p{n}', 'namespace': 'default', 'uid': str(n)}}, 'Normal', 'Why', 'x'
        )
    task = asyncio.ensure_future(recorder.run())
    while len(waits) < 4:
        await asyncio.wait({task}, timeout=0.01)
    task.cancel()
    assert sorted(round(w, -2) for w in waits) == [0, 0, 0, 1000]


async def no_wait(waits, seconds):
    waits.append(seconds)


async def test_a_full_queue_drops_and_counts(client, env):
    recorder = EventRecorder(client, env, 'me')
    for _ in range(QUEUE_MAX + 3):
        recorder.event(POD, 'Normal', 'Why', 'x')
    assert recorder.dropped == 3


async def test_events_of_one_object_are_sent_in_order_and_other_objects_do_not_wait_for_it(client, env, until):
    recorder = EventRecorder(client, env, 'me')
    sent, held = [], asyncio.Event()

    async def create(_, event):
        sent.append((event['involvedObject']['name'], event['reason']))
        if event['involvedObject']['name'] == 'p':
            await held.wait()

    client.create = create
    for name in ('p', 'q'):
        for reason in ('Created', 'Started'):
            recorder.event({'kind': 'Pod', 'metadata': {'name': name, 'uid': name}}, 'Normal', reason, 'x')
    task = asyncio.ensure_future(recorder.run())
    await until(lambda: ('q', 'Started') in sent)
    assert [reason for name, reason in sent if name == 'p'] == ['Created']
    held.set()
    await until(lambda: ('p', 'Started') in sent)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_was_recorded_a_moment_before_an_orderly_stop_is_sent(api, client, env):
    recorder = EventRecorder(client, env, 'me')
    task = asyncio.ensure_future(recorder.run())
    await asyncio.sleep(0)
    for number in range(SENDERS + 3):
        pod = {'kind': 'Pod', 'metadata': {'name': f'p{number}', 'uid': str(number)}}
        recorder.event(pod, 'Normal', 'Killing', 'Stopping container c')
        recorder.event(pod, 'Normal', 'Gone', 'x')
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(api.all('events')) == 2 * (SENDERS + 3)
    assert recorder.dropped == 0


async def test_a_server_that_hangs_holds_up_a_stop_for_a_second_and_no_longer(client, env):
    recorder = EventRecorder(client, env, 'me')

    async def create(_, event):
        await asyncio.Event().wait()

    client.create = create
    for number in range(3):
        recorder.event({'kind': 'Pod', 'metadata': {'name': str(number)}}, 'Normal', 'Gone', 'x')
        recorder.event({'kind': 'Pod', 'metadata': {'name': str(number)}}, 'Normal', 'Gone', 'y')
    task = asyncio.ensure_future(recorder.run())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(60):
        await asyncio.gather(task, return_exceptions=True)
    assert recorder.dropped == 3, 'those that were never tried'


def test_the_bucket_of_an_object_refills_by_one_event_in_five_minutes():
    correlator = Correlator('me', '')
    assert all(correlator.take(fact('x'), 0, 'a') for _ in range(25))
    assert correlator.take(fact('x'), 299, 'a') is None
    assert correlator.take(fact('x'), 300, 'a') is not None
    assert correlator.take(fact('x'), 301, 'a') is None
    assert [correlator.take(fact('x'), 301 + 26 / REFILL_PER_S, 'a') is not None for _ in range(26)].count(True) == 25


def test_ten_quiet_minutes_end_the_combining_of_similar_events():
    correlator = Correlator('me', '')
    for i in range(11):
        correlator.take(fact(f'm{i}'), 0, str(i))
    assert correlator.take(fact('late'), SIMILAR_WINDOW_S - 1, 'x')[1]['message'].startswith('(combined')
    still = correlator.take(fact('later'), 1.9 * SIMILAR_WINDOW_S, 'x')
    assert still[1]['message'].startswith('(combined'), 'counted from the last one, not from the first'
    assert correlator.take(fact('fresh'), 3 * SIMILAR_WINDOW_S, 'x')[1]['message'] == 'fresh'
