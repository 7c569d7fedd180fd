"""The audit log: who did what, by policy, and never a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from kapi.server.audit import BODY_BYTES_MAX

POLICY = """
rules:
  - {level: None, nonResourceURLs: ['*']}
  - level: RequestResponse
    verbs: [create]
    resources: [{group: '', resources: [secrets]}]
    omitStages: [RequestReceived]
  - {level: None}
"""


async def test_requests_become_lines_by_policy_and_no_secret_is_in_them(serve: Any, tmp_path: Path) -> None:
    policy, log = tmp_path / 'policy.yaml', tmp_path / 'audit.log'
    policy.write_text(POLICY)
    async with serve(audit_policy_file=policy, audit_log_path=log) as world:
        api = await world.user('admin', 'system:masters')
        await api.get('/apis')
        body = {'metadata': {'name': 's'}, 'stringData': {'k': 'hunter2'}}
        made = await api.post('/api/v1/namespaces/default/secrets', body)
        await api.get('/api/v1/namespaces/default/secrets')
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    assert len(lines) == 1
    event = lines[0]
    assert event['auditID'] == made.headers['Audit-Id']
    assert (event['verb'], event['stage'], event['responseStatus']['code']) == ('create', 'ResponseComplete', 201)
    assert event['objectRef'] == {'resource': 'secrets', 'namespace': 'default', 'apiVersion': 'v1'}
    assert event['user']['username'] == 'admin'
    assert 'hunter2' not in log.read_text()


BODIES = """
omitManagedFields: true
omitStages: [RequestReceived]
rules:
  - {level: RequestResponse, resources: [{group: ''}, {group: authentication.k8s.io}]}
  - {level: Request, omitManagedFields: false, resources: [{group: apps}]}
"""
APPLIED = {'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': 'c'}, 'data': {'k': 'new'}}


async def test_bodies_are_kept_as_the_level_says_without_managed_fields(serve: Any, tmp_path: Path) -> None:
    policy, log = tmp_path / 'policy.yaml', tmp_path / 'audit.log'
    policy.write_text(BODIES)
    async with serve(audit_policy_file=policy, audit_log_path=log) as world:
        api = await world.user('admin', 'system:masters')
        maps = '/api/v1/namespaces/default/configmaps'
        await api.post(maps, {'metadata': {'name': 'c'}, 'data': {'k': 'old'}})
        await api.patch(f'{maps}/c?fieldManager=m&force=true', APPLIED, 'apply-patch')
        await api.get(f'{maps}?limit=500')
        await api.post(maps, {'metadata': {'name': 'c'}})
        await api.post(maps, {'metadata': {'name': 'large'}, 'data': {'k': 'x' * BODY_BYTES_MAX}})
        await api.post('/apis/apps/v1/namespaces/default/deployments', {'metadata': {'name': 'bad'}})
    made, applied, listed, refused, large, wrong = (orjson.loads(line) for line in log.read_bytes().splitlines())
    assert made['requestObject'] == {'metadata': {'name': 'c'}, 'data': {'k': 'old'}}
    assert (made['level'], made['responseObject']['data']) == ('RequestResponse', {'k': 'old'})
    assert (applied['requestObject'], applied['responseObject']['data']) == (APPLIED, {'k': 'new'})
    assert 'c' in {item['metadata']['name'] for item in listed['responseObject']['items']}
    assert b'managedFields' not in log.read_bytes()
    assert refused['responseObject']['reason'] == 'AlreadyExists'
    assert refused['responseStatus'] == {
        'metadata': {}, 'code': 409, 'status': 'Failure', 'reason': 'AlreadyExists',
        'message': 'configmaps "c" already exists',
    }  # fmt: skip
    assert not {'requestObject', 'responseObject'} & large.keys()
    assert large['annotations']['audit.k8s.io/truncated'] == 'true'
    assert (wrong['level'], 'requestObject' in wrong, 'responseObject' in wrong) == ('Request', True, False)


async def test_a_body_of_any_shape_leaves_one_bounded_line(serve: Any, tmp_path: Path) -> None:
    policy, log = tmp_path / 'policy.yaml', tmp_path / 'audit.log'
    policy.write_text(BODIES)
    deep = b'{"data":' + b'[' * 600 + b']' * 600 + b'}'
    aliases = b'a: &a [' + b'x,' * 900 + b']\nb: [' + b'*a,' * 900 + b']\n'
    bodies = [(deep, 'json'), (aliases, 'yaml'), (b'{', 'json'), (b'[1]', 'json'), (b'{"items": 1}', 'json')]
    async with serve(audit_policy_file=policy, audit_log_path=log) as world:
        api = await world.user('admin', 'system:masters')
        for body, media in bodies:
            made = await api.post('/api/v1/namespaces/default/configmaps', body, content_type=f'application/{media}')
            assert 400 <= made.status < 500, made.text
    lines = log.read_bytes().splitlines()
    assert max(map(len, lines)) < BODY_BYTES_MAX
    shown = [orjson.loads(line).get('requestObject') for line in lines]
    assert shown == [None, None, None, [1], {'items': 1}]


async def test_no_level_keeps_the_bodies_of_secrets_and_tokens(serve: Any, tmp_path: Path) -> None:
    policy, log = tmp_path / 'policy.yaml', tmp_path / 'audit.log'
    policy.write_text('rules: [{level: RequestResponse}]')
    async with serve(audit_policy_file=policy, audit_log_path=log) as world:
        api = await world.user('admin', 'system:masters')
        await api.post(
            '/api/v1/namespaces/default/secrets', {'metadata': {'name': 's'}, 'stringData': {'k': 'hunter2'}}
        )
        await api.get('/api/v1/secrets')
        await api.post('/api/v1/namespaces/default/secrets', {'metadata': {'name': 't'}, 'type': 'hunter2', 'data': 7})
        await api.post('/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 'a'}})
        made = await api.post('/api/v1/namespaces/default/serviceaccounts/a/token', {'spec': {}})
        token = made.json['status']['token']
        await api.post('/apis/authentication.k8s.io/v1/tokenreviews', {'spec': {'token': token}})
        await api.delete('/api/v1/namespaces/default/secrets')
    text = log.read_text()
    assert 'hunter2' not in text
    assert 'aHVudGVyMg' not in text
    assert token not in text
    about = {(e['objectRef']['resource'], e['level']) for e in map(orjson.loads, text.splitlines()) if 'objectRef' in e}
    assert {('secrets', 'Metadata'), ('tokenreviews', 'Metadata'), ('serviceaccounts', 'RequestResponse')} <= about
