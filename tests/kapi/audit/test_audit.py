"""The audit log: who did what, by policy, and never a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

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
