"""What may be asked of a log, in upstream's words."""

from __future__ import annotations

import pytest

from kapi.errors import BadRequest, InvalidObject
from kapi.server.handlers.log import check_options

BOTH = ': Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified'


@pytest.mark.parametrize(
    ('query', 'words'),
    [
        ({'tailLines': '-1'}, 'tailLines: Invalid value: -1: must be greater than or equal to 0'),
        ({'limitBytes': '0'}, 'limitBytes: Invalid value: 0: must be greater than 0'),
        ({'sinceSeconds': '0'}, 'sinceSeconds: Invalid value: 0: must be greater than 0'),
        ({'sinceSeconds': '-1', 'sinceTime': '2026-01-01T00:00:00Z'}, BOTH),
        ({'tailLines': '-1', 'sinceSeconds': '1', 'sinceTime': '2026-01-01T00:00:00Z'},
         f'[tailLines: Invalid value: -1: must be greater than or equal to 0, {BOTH}]'),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_its_name(query, words):
    with pytest.raises(InvalidObject) as refused:
        check_options('p', {k: [v] for k, v in query.items()})
    assert str(refused.value) == f'PodLogOptions "p" is invalid: {words}'


def test_what_is_no_number_is_refused():
    with pytest.raises(BadRequest, match=r'strconv\.ParseInt: parsing "x": invalid syntax'):
        check_options('p', {'tailLines': ['x']})


@pytest.mark.parametrize('query', [{}, {'tailLines': '0', 'limitBytes': '1', 'sinceSeconds': '1'}, {'sinceTime': 'x'}])
def test_the_rest_is_for_the_node_to_answer(query):
    check_options('p', {k: [v] for k, v in query.items()})
