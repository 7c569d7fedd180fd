"""What `apply` sends, given what was applied last, what is wanted and what is live."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapi.schemas import builtin
from kcore.meta.patch import merge_patch, strategic_merge_patch
from kctl.verbs.lib import threeway


@pytest.fixture(scope='module')
def pod():
    return builtin.find('', 'v1', 'Pod').root


def spec(*containers, **more):
    return {'spec': {'containers': [*containers], **more}}


def test_nothing_to_do_is_an_empty_patch(pod):
    live = spec({'name': 'a', 'image': 'x', 'imagePullPolicy': 'Always'}, restartPolicy='Always')
    assert threeway.patch(spec({'name': 'a', 'image': 'x'}), spec({'name': 'a', 'image': 'x'}), live, pod) == {}


def test_a_changed_container_is_named_and_nothing_else_is_sent(pod):
    live = spec({'name': 'a', 'image': 'x', 'imagePullPolicy': 'Always'}, {'name': 'b', 'image': 'y'})
    wanted = spec({'name': 'a', 'image': 'z'}, {'name': 'b', 'image': 'y'})
    assert threeway.patch(live, wanted, live, pod)['spec'] == {
        '$setElementOrder/containers': [{'name': 'a'}, {'name': 'b'}],
        'containers': [{'name': 'a', 'image': 'z', 'imagePullPolicy': None}],
    }


def test_what_the_manifest_dropped_is_removed_and_what_it_never_had_stays(pod):
    last = spec({'name': 'a', 'image': 'x', 'env': [{'name': 'A', 'value': '1'}, {'name': 'B', 'value': '2'}]})
    live = copy.deepcopy(last)
    live['spec']['containers'][0]['env'].append({'name': 'INJECTED', 'value': '3'})
    live['spec']['containers'].append({'name': 'sidecar', 'image': 's'})
    wanted = spec({'name': 'a', 'image': 'x', 'env': [{'name': 'A', 'value': '1'}]})
    change = threeway.patch(last, wanted, live, pod)
    after = strategic_merge_patch(live, change, pod)
    assert [c['name'] for c in after['spec']['containers']] == ['a', 'sidecar']
    assert {e['name'] for e in after['spec']['containers'][0]['env']} == {'A', 'INJECTED'}


def test_a_list_without_a_merge_key_is_replaced(pod):
    live = spec({'name': 'a', 'image': 'x', 'args': ['1', '2']})
    change = threeway.patch(live, spec({'name': 'a', 'image': 'x', 'args': ['1']}), live, pod)
    assert change['spec']['containers'] == [{'name': 'a', 'args': ['1']}]


def test_without_a_schema_the_patch_is_a_json_merge_patch():
    last, live = {'spec': {'l': [1], 'gone': 1}}, {'spec': {'l': [1, 2], 'gone': 1, 'other': 5}}
    change = threeway.patch(last, {'spec': {'l': [1]}}, live, None)
    assert change == {'spec': {'gone': None, 'l': [1]}}
    assert merge_patch(live, change) == {'spec': {'l': [1], 'other': 5}}


LABELS = st.dictionaries(st.sampled_from('abc'), st.sampled_from('12'), max_size=3)
CONTAINERS = st.lists(
    st.fixed_dictionaries({'name': st.sampled_from('xyz'), 'image': st.sampled_from('12')}),
    max_size=3, unique_by=lambda c: c['name'],
)  # fmt: skip
OBJECTS = st.builds(lambda labels, cs: {'metadata': {'labels': labels}, 'spec': {'containers': cs}}, LABELS, CONTAINERS)


@given(last=OBJECTS, wanted=OBJECTS, live=OBJECTS)
def test_after_the_patch_the_wanted_holds_the_dropped_is_gone_and_a_second_apply_does_nothing(pod, last, wanted, live):
    after = strategic_merge_patch(live, threeway.patch(last, wanted, live, pod), pod)
    labels = after['metadata']['labels']
    assert wanted['metadata']['labels'].items() <= labels.items()
    assert not (last['metadata']['labels'].keys() - wanted['metadata']['labels'].keys()) & labels.keys()
    have = {c['name']: c for c in after['spec']['containers']}
    assert all(have[c['name']] == c for c in wanted['spec']['containers'])
    dropped = {c['name'] for c in last['spec']['containers']} - {c['name'] for c in wanted['spec']['containers']}
    assert not dropped & have.keys()
    assert threeway.patch(wanted, wanted, after, pod) == {}
