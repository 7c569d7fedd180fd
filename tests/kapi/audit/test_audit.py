"""The audit log: who did what, by policy, and never a secret."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from kapi.audit.audit import EVERYTHING, AuditLog, BadPolicy, Policy, Rotation
from kapi.authn.user import User
from kapi.server.audit import BODY_BYTES_MAX
from kapi.server.requestinfo import RequestInfo
from tests.hush import MARK, leaks

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
        body = {'metadata': {'name': 's'}, 'stringData': {'k': MARK}}
        made = await api.post('/api/v1/namespaces/default/secrets', body)
        await api.get('/api/v1/namespaces/default/secrets')
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    assert len(lines) == 1
    event = lines[0]
    assert event['auditID'] == made.headers['Audit-Id']
    assert (event['verb'], event['stage'], event['responseStatus']['code']) == ('create', 'ResponseComplete', 201)
    assert event['objectRef'] == {'resource': 'secrets', 'namespace': 'default', 'apiVersion': 'v1'}
    assert event['user']['username'] == 'admin'
    assert MARK not in log.read_text()


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
        await api.post('/api/v1/namespaces/default/secrets', {'metadata': {'name': 's'}, 'stringData': {'k': MARK}})
        await api.get('/api/v1/secrets')
        await api.post('/api/v1/namespaces/default/secrets', {'metadata': {'name': 't'}, 'type': MARK, 'data': 7})
        await api.post('/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 'a'}})
        made = await api.post('/api/v1/namespaces/default/serviceaccounts/a/token', {'spec': {}})
        token = made.json['status']['token']
        await api.post('/apis/authentication.k8s.io/v1/tokenreviews', {'spec': {'token': token}})
        await api.delete('/api/v1/namespaces/default/secrets')
    text = log.read_text()
    assert leaks(tmp_path) == []
    assert token not in text
    about = {(e['objectRef']['resource'], e['level']) for e in map(orjson.loads, text.splitlines()) if 'objectRef' in e}
    assert {('secrets', 'Metadata'), ('tokenreviews', 'Metadata'), ('serviceaccounts', 'RequestResponse')} <= about


async def test_every_stage_is_told_and_none_that_is_omitted(serve: Any, tmp_path: Path) -> None:
    policy, log = tmp_path / 'policy.yaml', tmp_path / 'audit.log'
    policy.write_text(
        'rules: [{level: Metadata, verbs: [watch]}, {level: Metadata, users: [eve], omitStages: [ResponseComplete]},'
        ' {level: None, users: [admin]}, {level: Metadata, omitStages: [RequestReceived]}]'
    )
    async with serve(audit_policy_file=policy, audit_log_path=log, anonymous_auth=False) as world:
        api, eve, nobody = await world.user('admin', 'system:masters'), await world.user('eve'), await world.user()
        async with api.watch('/api/v1/pods?watch=1&timeoutSeconds=1') as event:
            with pytest.raises(EOFError):
                await event()
        await api.get('/api/v1/pods')
        await eve.get('/api/v1/pods')
        await api.get('/api/v1/pods', headers={'Impersonate-User': 'eve'})
        await nobody.get('/api/v1/pods', headers={'Authorization': 'Bearer wrong'})
    told = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    assert [(e['stage'], e.get('responseStatus', {}).get('code')) for e in told if e['verb'] == 'watch'] == [
        ('RequestReceived', None), ('ResponseStarted', 200), ('ResponseComplete', 200)
    ]  # fmt: skip
    others = [(e['stage'], e['user'].get('username'), e.get('responseStatus', {}).get('code')) for e in told]
    assert others[3:] == [('RequestReceived', 'eve', None), ('ResponseStarted', None, 401)]
    assert len({e['auditID'] for e in told}) == 3


async def test_what_authorization_and_admission_note_is_in_the_event(serve: Any, tmp_path: Path) -> None:
    log = tmp_path / 'audit.log'
    async with serve(audit_log_path=log) as world:
        api, eve = await world.user('admin', 'system:masters'), await world.user('eve')
        labels = {'pod-security.kubernetes.io/audit': 'restricted', 'pod-security.kubernetes.io/enforce': 'baseline'}
        await api.patch('/api/v1/namespaces/default', {'metadata': {'labels': labels}})
        await api.get('/api/v1/namespaces/default')
        pods = '/api/v1/namespaces/default/pods'
        await api.post(pods, {'metadata': {'name': 'p'}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}})
        spec = {'hostNetwork': True, 'containers': [{'name': 'c', 'image': 'i'}]}
        await api.post(pods, {'metadata': {'name': 'p'}, 'spec': spec})
        await eve.get(pods)
        await api.get('/api/v1/pods', headers={'Impersonate-User': 'eve'})
    *_, made, refused, forbidden, as_eve = (orjson.loads(line) for line in log.read_bytes().splitlines())
    assert 'would violate' in made['annotations']['pod-security.kubernetes.io/audit-violations']
    decided = 'authorization.k8s.io/decision'
    codes = [(e['responseStatus']['code'], e['annotations'][decided]) for e in (made, refused, forbidden)]
    assert codes == [(201, 'allow'), (403, 'allow'), (403, 'forbid')]
    assert (as_eve['user']['username'], as_eve['impersonatedUser']['username']) == ('admin', 'eve')


INFO = RequestInfo('/api/v1/x', 'get', {}, True, plural='pods', namespace='a', name='n', subresource='log')
LIST = RequestInfo('/api/v1/nodes', 'list', {}, True, plural='nodes')
PATH = RequestInfo('/healthz/etcd', 'get', {})
DEPLOYMENT = RequestInfo('/apis/apps/v1/x', 'get', {}, True, 'apps', 'v1', 'a', 'deployments', 'n')


@pytest.mark.parametrize(('rule', 'matched'), [
    ({}, [INFO, LIST, PATH, DEPLOYMENT]),
    ({'users': ['bob']}, []), ({'users': ['eve']}, [INFO, LIST, PATH, DEPLOYMENT]),
    ({'userGroups': ['dev', 'x']}, [INFO, LIST, PATH, DEPLOYMENT]), ({'userGroups': ['x']}, []),
    ({'verbs': ['list']}, [LIST]), ({'namespaces': ['a']}, [INFO, DEPLOYMENT]), ({'namespaces': ['']}, [LIST]),
    ({'nonResourceURLs': ['/healthz*']}, [PATH]), ({'nonResourceURLs': ['*']}, [PATH]),
    ({'nonResourceURLs': ['/healthz']}, []),
    ({'resources': [{'group': ''}]}, [INFO, LIST]), ({'resources': [{'group': 'apps'}]}, [DEPLOYMENT]),
    ({'resources': [{'resources': ['pods']}]}, []), ({'resources': [{'resources': ['pods/log']}]}, [INFO]),
    ({'resources': [{'resources': ['pods/*']}]}, [INFO]), ({'resources': [{'resources': ['*/log']}]}, [INFO]),
    ({'resources': [{'resources': ['*']}]}, [INFO, LIST]), ({'resources': [{'resources': ['nodes/*']}]}, [LIST]),
    ({'resources': [{'resources': ['pods/log'], 'resourceNames': ['n']}]}, [INFO]),
    ({'resources': [{'resources': ['pods/log'], 'resourceNames': ['m']}]}, []),
    ({'resources': [{'group': ''}], 'namespaces': ['b']}, []),
])  # fmt: skip
def test_a_rule_is_about_the_requests_that_upstream_says(rule: Any, matched: list[RequestInfo]) -> None:
    policy = Policy(({'level': 'Request', **rule},))
    eve = User('eve', ('dev',))
    found = [i for i in (INFO, LIST, PATH, DEPLOYMENT) if policy.decide(i, eve).level != 'None']
    assert found == matched


@pytest.mark.parametrize(('text', 'why'), [
    ('rules: []', 'rules: a policy'), ('{}', 'no audit policy'), ('rules: [{level: Loud}]', 'rules[0].level'),
    ('{kind: Pod, rules: [{level: None}]}', 'apiVersion, kind'),
    ('rules: [{level: None, resource: []}]', 'rules[0].resource: unknown field'),
    ('{omitStages: [Never], rules: [{level: None}]}', 'omitStages: "Never"'),
    ('rules: [{level: None, omitStages: [x]}]', 'rules[0].omitStages: "x"'),
    ("rules: [{level: None, nonResourceURLs: ['/x'], namespaces: [a]}]", 'rules[0].nonResourceURLs: rules cannot'),
    ("rules: [{level: None, nonResourceURLs: ['/a*b']}]", 'rules[0].nonResourceURLs: "/a*b"'),
    ("rules: [{level: None, resources: [{group: '*'}]}]", 'rules[0].resources[0].group'),
    ("rules: [{level: None, resources: [{group: '', resourceNames: [a]}]}]", 'rules[0].resources[0].resourceNames'),
])  # fmt: skip
def test_a_bad_policy_is_refused_by_the_field(tmp_path: Path, env: Any, text: str, why: str) -> None:
    file = tmp_path / 'policy.yaml'
    file.write_text(text)
    with pytest.raises(BadPolicy, match=re.escape(why)):
        Policy.load(file, env)


def test_a_full_log_moves_on_and_as_many_are_kept_as_asked(tmp_path: Path, env: Any) -> None:
    path = tmp_path / 'audit.log'
    log = AuditLog(EVERYTHING, path, env, Rotation(400, 2))
    for n in range(20):
        log.write('ResponseComplete', {'n': n, 'pad': 'x' * 100})
    log.close()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names[-2:] == ['audit.log.1', 'audit.log.2']
    kept = [orjson.loads(line)['n'] for name in ('audit.log.2', 'audit.log.1', 'audit.log')
            if (tmp_path / name).exists() for line in (tmp_path / name).read_bytes().splitlines()]  # fmt: skip
    assert kept == list(range(20 - len(kept), 20))


def test_a_full_disk_tears_one_line_and_the_next_one_is_whole(tmp_path: Path, env: Any, monkeypatch: Any) -> None:
    path = tmp_path / 'audit.log'
    log = AuditLog(EVERYTHING, path, env, Rotation())
    log.write('ResponseComplete', {'n': 1})
    write, room = os.write, [10]

    def full(fd: int, data: Any) -> int:
        if not room:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return write(fd, data[: room.pop()])

    monkeypatch.setattr(os, 'write', full)
    log.write('ResponseComplete', {'n': 2})
    log.write('ResponseComplete', {'n': 3})
    monkeypatch.setattr(os, 'write', write)
    log.write('ResponseComplete', {'n': 4})
    log.close()
    first, torn, last = path.read_bytes().splitlines()
    assert (orjson.loads(first)['n'], orjson.loads(last)['n'], len(torn)) == (1, 4, 10)
