"""What a PriorityLevelConfiguration and a FlowSchema may say."""

from __future__ import annotations

from typing import Any

import pytest

LEVELS = '/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations'
AT = 'spec.limited.limitResponse.queuing'


def queued(**queuing: int) -> dict[str, Any]:
    return {'type': 'Limited', 'limited': {'limitResponse': {'type': 'Queue', 'queuing': queuing}}}


def limited(**fields: Any) -> dict[str, Any]:
    return {'type': 'Limited', 'limited': {'limitResponse': {'type': 'Reject'}, **fields}}


@pytest.mark.parametrize(('spec', 'field', 'said'), [
    (queued(queues=0), f'{AT}.queues', 'must be positive'),
    (queued(queues=10_000_001, handSize=2), f'{AT}.queues', 'must not be greater than 10000000'),
    (queued(queueLengthLimit=0), f'{AT}.queueLengthLimit', 'must be positive'),
    (queued(handSize=0), f'{AT}.handSize', 'must be positive'),
    (queued(queues=4, handSize=5), f'{AT}.handSize', 'should not be greater than queues (4)'),
    (queued(queues=512, handSize=8), f'{AT}.handSize',
     'required entropy bits of deckSize 512 and handSize 8 should not be greater than 60'),
    (limited(limitResponse={'type': 'Queue'}), AT, 'must not be empty'),
    (limited(limitResponse={'type': 'Reject', 'queuing': {}}), AT, 'must be nil'),
    (limited(nominalConcurrencyShares=-1), 'spec.limited.nominalConcurrencyShares', 'greater than or equal to 0'),
    (limited(lendablePercent=101), 'spec.limited.lendablePercent', 'must be between 0 and 100, inclusive'),
    (limited(borrowingLimitPercent=-1), 'spec.limited.borrowingLimitPercent', 'must be a non-negative integer'),
    ({'type': 'Exempt', 'limited': {'limitResponse': {'type': 'Reject'}}}, 'spec.limited', 'must be nil'),
    ({**limited(), 'exempt': {}}, 'spec.exempt', 'must be nil'),
    ({'type': 'Exempt', 'exempt': {'lendablePercent': -1}}, 'spec.exempt.lendablePercent', 'must be between'),
    ({'type': 'Limited'}, 'spec.limited', 'must not be empty'),
])  # fmt: skip
async def test_a_level_that_makes_no_sense_is_refused_by_field(
    api: Any, spec: dict[str, Any], field: str, said: str
) -> None:
    refused = await api.post(LEVELS, {'metadata': {'name': 'bad'}, 'spec': spec})
    assert refused.status == 422
    causes = {cause['field']: cause['message'] for cause in refused.json['details']['causes']}
    assert said in causes[field]


async def test_a_level_with_millions_of_queues_serves_at_once(world: Any, api: Any) -> None:
    spec = queued(queues=10_000_000, handSize=2)
    assert (await api.post(LEVELS, {'metadata': {'name': 'wide'}, 'spec': spec})).status == 201
    assert (await (await world.user('bob')).get('/apis')).status == 200
    shown = (await api.get('/debug/api_priority_and_fairness/dump_queues')).text
    assert 'wide' not in shown


SCHEMAS = '/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas'
BOB = {'kind': 'User', 'user': {'name': 'bob'}}
PATHS = {'verbs': ['get'], 'nonResourceURLs': ['/x']}
PODS = {'verbs': ['get'], 'apiGroups': [''], 'resources': ['pods'], 'namespaces': ['*']}


def rule(*subjects: dict[str, Any], **rules: Any) -> dict[str, Any]:
    return {'subjects': list(subjects), **(rules or {'nonResourceRules': [PATHS]})}


def without(whole: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in whole.items() if name != field}


@pytest.mark.parametrize(('broken', 'field', 'said'), [
    (rule(), 'subjects', 'subjects must contain at least one value'),
    (rule(BOB, resourceRules=[]), '', 'at least one of resourceRules and nonResourceRules has to be non-empty'),
    (rule({'kind': 'User'}), 'subjects[0].user', "user is required when subject kind is 'User'"),
    (rule({'kind': 'Group', 'group': {'name': ''}}), 'subjects[0].group.name', 'Required value'),
    (rule({'kind': 'Robot'}), 'subjects[0].kind', 'Unsupported value'),
    (rule({**BOB, 'group': {'name': 'x'}}), 'subjects[0].group', "group is forbidden when subject kind is not 'Group'"),
    (rule({'kind': 'ServiceAccount', 'serviceAccount': {'namespace': '', 'name': 'x'}}),
     'subjects[0].serviceAccount.namespace', 'Required value'),
    (rule(BOB, resourceRules=[{**PODS, 'verbs': ['*', 'get']}]), 'resourceRules[0].verbs', "if '*' is present"),
    (rule(BOB, resourceRules=[{**PODS, 'resources': []}]), 'resourceRules[0].resources', 'at least one value'),
    (rule(BOB, resourceRules=[without(PODS, 'namespaces')]), 'resourceRules[0].namespaces', 'at least one namespace'),
    (rule(BOB, nonResourceRules=[{**PATHS, 'nonResourceURLs': []}]), 'nonResourceRules[0].nonResourceURLs', 'at least'),
])  # fmt: skip
async def test_a_schema_that_can_match_nobody_is_refused_by_field(
    api: Any, broken: dict[str, Any], field: str, said: str
) -> None:
    spec = {'priorityLevelConfiguration': {'name': 'exempt'}, 'matchingPrecedence': 50, 'rules': [broken]}
    refused = await api.post(SCHEMAS, {'metadata': {'name': 'bad'}, 'spec': spec})
    assert refused.status == 422
    at = 'spec.rules[0]' + (f'.{field}' if field else '')
    causes = {cause['field']: cause['message'] for cause in refused.json['details']['causes']}
    assert said in causes[at]


async def test_nobody_goes_before_the_exempt_schema(api: Any) -> None:
    spec = {'priorityLevelConfiguration': {'name': 'exempt'}, 'matchingPrecedence': 1, 'rules': [rule(BOB)]}
    refused = await api.post(SCHEMAS, {'metadata': {'name': 'first'}, 'spec': spec})
    assert "only the schema named 'exempt' may have matchingPrecedence 1" in refused.json['message']
