"""What a person gets wrong in the server's settings is told in a sentence that names the file or the flag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kapi.app import run
from kapi.config import ApiConfig
from kcore.env import Env
from kcore.tasks import BadSetting, until_signalled


def settings(authority: Any, **changes: Any) -> ApiConfig:
    cert, key = authority.issue('server', 'kubernetes')
    given = {'listen': '127.0.0.1:0', 'tls_cert': cert, 'tls_key': key, 'client_ca': authority.directory / 'ca.crt'}
    return ApiConfig(**{**given, **changes})


MISTAKES: list[tuple[str, bytes | None, str]] = [
    ('token_auth_file', b'tok\n', '--token-auth-file {file}: line 1: token,user,uid expected'),
    ('token_auth_file', b'\xff,u,1\n', '--token-auth-file {file}: '),
    ('token_auth_file', None, '--token-auth-file .*No such file'),
    ('tls_cert', None, '{file}: No such file'),
    ('tls_key', b'x', 'key'),
    ('client_ca', b'x', '{file}: no authority in PEM form'),
    ('service_account_signing_key_file', b'x', '{file}: no private key in PEM form'),
    ('encryption_key_file', b'x', '{file}: line 1: NAME and 32 bytes'),
    ('audit_log_path', None, '--audit-log-path {file}: No such file'),
    ('authentication_token_webhook_config_file', b'x', '{file}: no kubeconfig'),
    ('authorization_webhook_config_file', b'x', '{file}: no kubeconfig'),
    ('requestheader_client_ca_file', b'x', '{file}: no authority in PEM form'),
]


@pytest.mark.parametrize(('setting', 'content', 'why'), MISTAKES, ids=lambda v: v if isinstance(v, str) else '')
async def test_a_file_that_cannot_be_used_is_named(
    authority: Any, tmp_path: Path, setting: str, content: bytes | None, why: str
) -> None:
    file = tmp_path / 'none' / 'x'
    if content is not None:
        file = tmp_path / 'x'
        file.write_bytes(content)
    with pytest.raises(BadSetting, match=why.format(file=file)):
        await run(settings(authority, **{setting: file}), Env.real(), lambda: None)


async def test_a_bad_authority_of_an_identity_provider_is_named(authority: Any, tmp_path: Path) -> None:
    file = tmp_path / 'x'
    file.write_text('x')
    provider = {'oidc_issuer_url': 'https://x', 'oidc_client_id': 'c', 'oidc_ca_file': file}
    with pytest.raises(BadSetting, match=f'--oidc-ca-file {file}'):
        await run(settings(authority, **provider), Env.real(), lambda: None)


@pytest.mark.parametrize('flag', ['audit_policy_file', 'service_account_key_file'])
def test_flags_that_mean_nothing_alone_are_refused(authority: Any, tmp_path: Path, flag: str) -> None:
    with pytest.raises(ValueError, match=f'{flag.replace("_", "-")} needs '):
        settings(authority, **{flag: (tmp_path,) if flag.startswith('service') else tmp_path})


async def test_a_bad_setting_ends_a_process_without_a_traceback(capsys: Any) -> None:
    async def main() -> None:
        raise BadSetting('--x y: no')

    assert await until_signalled(main()) == 1
    said = capsys.readouterr()
    assert '--x y: no' in said.out + said.err
    assert 'Traceback' not in said.out + said.err
