"""The search for secrets finds what it must, and every test that makes a Secret marks its value."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from tests.hush import MARK, hushed, leaks

TESTS = Path(__file__).parent
MAKES = re.compile(r"'stringData'|make\(SECRETS|stringData=|'secret', 'generic'")
JWT = 'eyJhbGciOiJFUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMuZGVmYXVsdCJ9.' + 'x' * 60
PEM = '-----BEGIN PRIVATE KEY-----\n' + 'M' * 64
SHOWN = [MARK, f'x{MARK}', MARK.encode().hex(), JWT, PEM, '{"kind":"Secret","metadata":{}}']
SHOWN += [base64.b64encode(b' ' * n + hushed('more').encode()).decode() for n in range(4)]


@pytest.mark.parametrize('text', SHOWN, ids=lambda t: t[:20])
def test_a_secret_is_found_in_whatever_form_it_lies_there(tmp_path: Path, text: str) -> None:
    path = tmp_path / 'logs' / 'api-1.log'
    path.parent.mkdir()
    path.write_bytes(b'\0' * 4096 + text.encode() + b'\xff' * 10)
    found = leaks(tmp_path)
    path.unlink()  # this run too is looked through
    assert [f.partition(':')[0] for f in found] == ['logs/api-1.log']


@pytest.mark.parametrize('home', ['pki/ca.key', 'kubeconfig', 'node-1/pods/u/volumes/v/password'])
def test_where_secrets_belong_they_may_be(tmp_path: Path, home: str) -> None:
    path = tmp_path / home
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(hushed('x'))
    found = leaks(tmp_path)
    path.unlink()
    assert found == []


def test_a_test_that_makes_a_secret_marks_its_value() -> None:
    makers = [p for p in TESTS.rglob('test_*.py') if p != Path(__file__) and MAKES.search(p.read_text())]
    unmarked = [str(p) for p in makers if 'from tests.hush import' not in p.read_text()]
    assert len(makers) > 8
    assert unmarked == []
