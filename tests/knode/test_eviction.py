"""Eviction: thresholds, conditions over virtual time, whom it hits and what it says."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from kcore.metrics import render
from knode.config import NodeConfig
from knode.errors import ImageGcFailed
from knode.eviction import disk
from knode.eviction.manager import EvictionManager
from knode.eviction.plan import State, Used, message, over_own_limit, ranked, refusal, step
from knode.eviction.thresholds import Amount, Level, Threshold, duration, thresholds
from knode.stats.model import Snapshot, Use
from tests.knode.virtual_node import VirtualNode

MI = 1 << 20
HARD = thresholds('memory.available<100Mi', '', '', '')


def memory(mi: int) -> dict[str, Level]:
    return {'memory.available': Level(mi * MI, 2048 * MI)}


def test_thresholds_are_written_as_for_the_kubelet():
    found = thresholds(
        'memory.available<100Mi,nodefs.available<10%', 'memory.available<1.5Gi', 'memory.available=1m30s',
        'memory.available=50Mi',
    )  # fmt: skip
    assert found == (
        Threshold('memory.available', Amount(100 * MI), Amount(50 * MI)),
        Threshold('nodefs.available', Amount(share=0.1)),
        Threshold('memory.available', Amount(1536 * MI), Amount(50 * MI), 90.0),
    )
    assert duration('1h2m3.5s') == 3723.5


@pytest.mark.parametrize(
    'flags',
    [
        ('memory<1', '', '', ''), ('memory.available', '', '', ''), ('memory.available<101%', '', '', ''),
        ('', 'memory.available<1Gi', '', ''), ('', '', 'memory.available=soon', ''),
    ],
)  # fmt: skip
def test_a_mistake_in_a_threshold_is_refused(flags):
    with pytest.raises(ValueError, match=r'must be|needs a grace|no duration'):
        thresholds(*flags)


def test_a_condition_lasts_five_minutes_beyond_the_shortage():
    one = step(State(), HARD, memory(99), 1000.0)
    assert one.conditions == {'MemoryPressure'}
    assert one.due == HARD[0]
    two = step(one.state, HARD, memory(500), 1010.0)
    assert two.due is None
    assert two.conditions == {'MemoryPressure'}
    assert step(two.state, HARD, memory(500), 1299.0).conditions == {'MemoryPressure'}
    assert step(two.state, HARD, memory(500), 1300.0).conditions == frozenset()


def test_a_soft_threshold_waits_for_its_grace_and_begins_anew_after_relief():
    soft = thresholds('', 'memory.available<300Mi', 'memory.available=30s', '')
    state, due = State(), []
    for now, available in ((0, 200), (29, 200), (30, 200), (40, 400), (50, 200), (79, 200), (80, 200)):
        found = step(state, soft, memory(available), float(now))
        state = found.state
        due.append(found.due is not None)
    assert due == [False, False, True, False, False, False, True]


def test_a_threshold_is_left_only_with_the_minimum_reclaim():
    both = thresholds('memory.available<100Mi', '', '', 'memory.available=50Mi')
    assert step(State(), both, memory(120), 0.0).due is None, 'not met yet'
    state = step(State(), both, memory(90), 0.0).state
    assert step(state, both, memory(149), 1.0).due is not None
    assert step(state, both, memory(150), 1.0).due is None


def test_memory_comes_first_and_shares_are_of_the_capacity():
    both = thresholds('nodefs.available<10%,memory.available<100Mi', '', '', '')
    levels = memory(50) | {'nodefs.available': Level(9, 100)}
    assert step(State(), both, levels, 0.0).due.signal == 'memory.available'
    assert step(State(), both, levels | memory(500), 0.0).due.signal == 'nodefs.available'
    assert step(State(), both, {'nodefs.available': Level(0, 0)}, 0.0).due is None, 'a file system that does not count'


def pod(name, priority=0, asked=None, **more):
    resources = {'requests': {'memory': asked}} if asked else {}
    return {
        'metadata': {'name': name, 'uid': name, 'annotations': more.pop('annotations', {})},
        'spec': {'priority': priority, 'containers': [{'name': 'c', 'image': 'x', 'resources': resources}], **more},
    }


def test_who_uses_more_than_he_asked_for_goes_first_then_the_less_important_then_the_largest():
    used = [
        Used(pod('modest', asked='500Mi'), {'c': 400 * MI}),
        Used(pod('modest-important', 9, asked='500Mi'), {'c': 499 * MI}),
        Used(pod('greedy-important', 9), {'c': 300 * MI}),
        Used(pod('greedy-small', asked='100Mi'), {'c': 150 * MI}),
        Used(pod('greedy-large', asked='50Mi'), {'c': 140 * MI}),
        Used(pod('system', 2_000_000_000), {'c': 900 * MI}),
        Used(pod('static', annotations={'kubernetes.io/config.source': 'file'}), {'c': 900 * MI}),
    ]
    order = [u.pod['metadata']['name'] for u in ranked(used, 'memory.available')]
    assert order == ['greedy-large', 'greedy-small', 'greedy-important', 'modest', 'modest-important']


def test_process_ids_go_by_priority_and_number():
    used = [Used(pod('a', 1), processes=90), Used(pod('b'), processes=3), Used(pod('c'), processes=5)]
    assert [u.pod['metadata']['name'] for u in ranked(used, 'pid.available')] == ['c', 'b', 'a']


def test_the_message_says_what_was_short_and_who_used_it():
    used = Used(pod('greedy', asked='50Mi'), {'c': 60 * MI})
    assert message(used, HARD[0], memory(80)) == (
        'The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi. '
        'Container c was using 60Mi, request is 50Mi, has larger consumption of memory. '
    )


LIMITED = {'resources': {'limits': {'ephemeral-storage': '10Mi'}}}


@pytest.mark.parametrize(
    ('spec', 'used', 'expected'),
    [
        ({}, {'disk': {'c': 99 * MI}}, ''),
        (
            {'volumes': [{'name': 'v', 'emptyDir': {'sizeLimit': '5Mi'}}]},
            {'volumes': {'v': 6 * MI}},
            'Usage of EmptyDir volume "v" exceeds the limit "5Mi". ',
        ),
        ({'volumes': [{'name': 'v', 'emptyDir': {'sizeLimit': '5Mi'}}]}, {'volumes': {'v': 5 * MI}}, ''),
        (
            {'containers': [{'name': 'c', **LIMITED}]},
            {'disk': {'c': 6 * MI}, 'volumes': {'v': 5 * MI}},
            'Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. ',
        ),
        (
            {'containers': [{'name': 'c', **LIMITED}, {'name': 'd', **LIMITED}]},
            {'disk': {'c': 11 * MI}},
            'Container c exceeded its local ephemeral storage limit "10Mi". ',
        ),
    ],
)
def test_a_pod_goes_for_what_it_wrote_beyond_its_own_limit(spec, used, expected):
    assert over_own_limit(Used({'spec': {'containers': [{'name': 'c'}], **spec}}, **used))[1] == expected


TOLERATES = {'tolerations': [{'key': 'node.kubernetes.io/memory-pressure', 'operator': 'Exists'}]}


@pytest.mark.parametrize(
    ('given', 'conditions', 'refused'),
    [
        (pod('best-effort'), [], False),
        (pod('best-effort'), ['MemoryPressure'], True),
        (pod('burstable', asked='1Mi'), ['MemoryPressure'], False),
        (pod('tolerant', **TOLERATES), ['MemoryPressure'], False),
        (pod('burstable', asked='1Mi'), ['DiskPressure'], True),
        (pod('burstable', asked='1Mi'), ['DiskPressure', 'MemoryPressure'], True),
        (pod('system', 2_000_000_000), ['DiskPressure'], False),
    ],
)
def test_a_node_under_pressure_refuses_pods(given, conditions, refused):
    text = refusal(given, conditions)
    assert bool(text) is refused
    if refused:
        assert text == f'The node had condition: [{" ".join(conditions)}]. '


def test_what_a_pod_wrote_is_counted_once(tmp_path):
    for part in ('containers/c', 'logs/c', 'volumes/v/deep'):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / 'logs/c/0.log').write_bytes(b'x' * 100_000)
    (tmp_path / 'volumes/v/deep/file').write_bytes(b'x' * 50_000)
    (tmp_path / 'volumes/v/link').hardlink_to(tmp_path / 'volumes/v/deep/file')
    (tmp_path / 'volumes/v/way-out').symlink_to('/')
    written, kept, inodes = disk.of_pod(tmp_path, ['c'], ['v'])
    assert 100_000 <= written['c'] < 120_000
    assert 50_000 <= kept['v'] < 70_000
    assert inodes == 4


def test_a_pod_goes_when_images_cannot_be_removed_and_how_old_the_figures_were_is_counted(tmp_path):
    node = VirtualNode(tmp_path)
    said = []

    async def stuck():
        raise ImageGcFailed('wanted to free much')

    async def script():
        sampled = asyncio.Event()
        sampled.set()
        use = Use(node.env.clock.wall(), 0, 0, 0)
        figures = {'sampled': sampled, 'snapshot': Snapshot(use, use), 'available_bytes': 1, 'capacity_bytes': 1}
        config = NodeConfig(
            name='n', kubeconfig='/dev/null', data_dir=tmp_path, eviction_hard='nodefs.available<1000Pi'
        )
        manager = EvictionManager(
            config, node.env, node.manager.workers.values, SimpleNamespace(**figures), metrics=node.host.metrics,
            tell=lambda conditions: None, said=lambda *words: said.append(words), free_images=stuck,
        )  # fmt: skip
        node.create('p')
        await asyncio.sleep(7)
        assert await manager.look()

    node.run(script)
    assert node.status('p')['reason'] == 'Evicted'
    assert said == [('EvictionThresholdMet', 'Attempting to reclaim ephemeral-storage')]
    text = render(node.host.metrics.registry).decode()
    assert 'kubelet_evictions{eviction_signal="nodefs.available"} 1.0' in text
    assert 'kubelet_eviction_stats_age_seconds_sum{eviction_signal="nodefs.available"} 7.' in text
