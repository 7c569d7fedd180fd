"""Conditions, owners, keys."""

from datetime import UTC, datetime

from kcore.meta import gvk, objects

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)


def test_keys_join_and_split():
    assert objects.key_of({'metadata': {'name': 'a', 'namespace': 'n'}}) == 'n/a'
    assert objects.split_key(objects.key_of({'metadata': {'name': 'a'}})) == ('', 'a')


def test_a_condition_moves_its_time_only_with_its_status():
    obj = {}
    assert objects.set_condition(obj, 'Ready', 'False', NOW, reason='Wait')
    assert not objects.set_condition(obj, 'Ready', 'False', LATER, reason='Wait')
    assert objects.set_condition(obj, 'Ready', 'False', LATER, reason='Other')
    assert objects.get_condition(obj, 'Ready')['lastTransitionTime'] == '2026-01-01T00:00:00Z'
    assert objects.set_condition(obj, 'Ready', 'True', LATER)
    assert objects.get_condition(obj, 'Ready') == {
        'type': 'Ready',
        'status': 'True',
        'lastTransitionTime': '2026-01-02T00:00:00Z',
    }
    assert objects.is_pod_ready(obj)


def test_the_controller_is_the_one_owner_marked_so():
    owner = {'metadata': {'name': 'd', 'uid': 'u'}}
    ref = objects.owner_ref(owner, gvk.DEPLOYMENTS)
    assert ref['apiVersion'] == 'apps/v1'
    assert objects.controller_of({'metadata': {'ownerReferences': [{'uid': 'x'}, ref]}}) == ref
    assert objects.controller_of({}) is None
