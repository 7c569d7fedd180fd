"""What a write through /status takes from whom."""

from __future__ import annotations

from typing import Any

import pytest

from kapi.registry.store import status_view

Obj = dict[str, Any]


def stored() -> Obj:
    return {
        'apiVersion': 'v1',
        'kind': 'Pod',
        'metadata': {'name': 'a', 'labels': {'a': 'b'}, 'ownerReferences': [{'uid': 'u'}]},
        'spec': {'nodeName': 'n', 'containers': [{'name': 'c'}]},
        'status': {'phase': 'Pending'},
    }


@pytest.mark.parametrize('spec', [stored()['spec'], {'nodeName': 'elsewhere'}, None])
def test_only_status_and_metadata_of_a_status_write_count_and_nothing_is_shared_with_the_old_object(spec: Obj | None):
    old, new = stored(), {**stored(), 'status': {'phase': 'Running'}}
    new['metadata'] = {'name': 'a', 'labels': {'a': 'c'}, 'ownerReferences': []}
    if spec is None:
        del new['spec']
    else:
        new['spec'] = spec
    view = status_view(new, old, ('ownerReferences',))
    assert view['status'] == {'phase': 'Running'}
    assert view['spec'] == stored()['spec']
    assert view['metadata'] == {'name': 'a', 'labels': {'a': 'c'}, 'ownerReferences': [{'uid': 'u'}]}
    view['spec']['containers'].append({'name': 'd'})
    view['metadata']['ownerReferences'][0]['uid'] = 'v'
    assert old == stored()


def test_a_status_write_may_leave_all_metadata_as_it_was():
    new = {**stored(), 'metadata': {'name': 'a', 'managedFields': [{'manager': 'm'}]}}
    assert status_view(new, stored(), ('*',))['metadata'] == {
        **stored()['metadata'], 'managedFields': [{'manager': 'm'}],
    }  # fmt: skip
