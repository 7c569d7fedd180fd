"""kubeconfig files: inline and by path, several servers, clear mistakes."""

from __future__ import annotations

import base64

import pytest
import yaml

from kclient.errors import ConfigError
from kclient.kubeconfig import load


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def config(**changes) -> dict:
    cluster = {'server': 'https://127.0.0.1:6443/', 'certificate-authority-data': b64('CA')}
    return {
        'clusters': [
            {'name': 'one', 'cluster': cluster},
            {'name': 'two', 'cluster': {**cluster, 'server': 'https://127.0.0.1:6444'}},
            {'name': 'foreign', 'cluster': {'server': 'https://1.2.3.4', 'certificate-authority-data': b64('other')}},
        ],
        'users': [{'name': 'me', 'user': {'client-certificate-data': b64('CRT'), 'client-key': 'me.key'}}],
        'contexts': [{'name': 'c', 'context': {'cluster': 'one', 'user': 'me', 'namespace': 'x'}},
                     {'name': 'c2', 'context': {'cluster': 'two', 'user': 'me'}}],
        'current-context': 'c',
        **changes,
    }  # fmt: skip


@pytest.fixture
def written(tmp_path):
    def write(doc) -> object:
        path = tmp_path / 'config'
        path.write_text(doc if isinstance(doc, str) else yaml.safe_dump(doc))
        (tmp_path / 'me.key').write_text('KEY')
        return path

    return write


def test_servers_of_the_same_authority_are_one_cluster(written, env):
    found = load(written(config()), env)
    assert found.servers == ('https://127.0.0.1:6443', 'https://127.0.0.1:6444')
    assert (found.ca_data, found.client_cert, found.client_key) == (b'CA', b'CRT', b'KEY')
    assert found.namespace == 'x'
    assert load(written(config()), env, 'c2').servers[0] == 'https://127.0.0.1:6444'


@pytest.mark.parametrize(
    ('doc', 'text'),
    [
        (config(**{'current-context': ''}), 'current-context'),
        (config(**{'current-context': 'nope'}), "no context named 'nope'"),
        (config(users=[]), "no user named 'me'"),
        (config(users=[{'name': 'me', 'user': {'client-key': 'absent.key'}}]), 'client-key'),
        (config(users=[{'name': 'me', 'user': {'client-certificate-data': '???'}}]), 'not base64'),
        (config(users=[{'name': 'me', 'user': {'exec': {}}}]), 'exec'),
        (config(clusters=[{'name': 'one', 'cluster': {'server': 'ftp://x'}}]), 'not an http'),
        ('- a list', 'not a kubeconfig'),
        ('a: [', 'cannot be read'),
    ],
)  # fmt: skip
def test_a_mistake_names_the_file_and_the_field(written, env, doc, text):
    path = written(doc)
    with pytest.raises(ConfigError, match=text) as e:
        load(path, env)
    assert str(path) in str(e.value)


def test_a_missing_file_is_one_line(tmp_path, env):
    with pytest.raises(ConfigError, match='no such kubeconfig'):
        load(tmp_path / 'absent', env)


def test_unusable_certificates_are_a_configuration_error(written, env):
    with pytest.raises(ConfigError, match='certificate or key'):
        load(written(config()), env).ssl_context()


def test_a_config_is_current_until_one_of_its_files_changes(tmp_path, env):
    path, key = tmp_path / 'config', tmp_path / 'me.key'
    path.write_text(yaml.safe_dump(config()))
    key.write_bytes(b'KEY')
    known = load(path, env)
    assert known.current(env) is known
    key.write_bytes(b'NEW')
    assert known.current(env).client_key == b'NEW'
    key.unlink()
    with pytest.raises(ConfigError, match=r'me\.key'):
        known.current(env)
