"""Events are counted, combined and limited."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from kclient.events import BURST, QUEUE_MAX, Correlator, EventRecorder, Fact

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
    taken = [correlator.take(fact(f'm{i}'), 0, str(i)) for i in range(12)]
    messages = [event['message'] for _, event, _ in taken]
    assert [(name, count) for name, _, count in taken[9:]] == [('p.9', 1), ('p.10', 1), ('p.10', 2)]
    assert messages[9] == 'm9'
    assert messages[10] == '(combined from similar events): m10'


def test_an_object_that_talks_too_much_is_silenced_alone():
    correlator = Correlator('me', '')
    sent = [correlator.take(fact('x'), 0, 'a') for _ in range(BURST + 5)]
    assert sent.count(None) == 5
    assert correlator.take(fact('x', name='q'), 0, 'a') is not None
    assert correlator.take(fact('x'), 301, 'a') is not None


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
