"""`kctl agent`: where it has its join token from, and which flags its node gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcore.env import Env
from kctl.verbs.agent import join_token, names
from kctl.verbs.lib.errors import CliError


def test_a_join_token_comes_from_a_flag_or_from_a_file_and_never_from_both(tmp_path: Path) -> None:
    env, file = Env.real(), tmp_path / 'token'
    file.write_text('abcdef.0123456789abcdef\n')
    assert join_token('', file, env) == 'abcdef.0123456789abcdef'
    assert (join_token('x', None, env), join_token('', None, env)) == ('x', '')
    with pytest.raises(CliError, match='exclude each other'):
        join_token('x', file, env)
    with pytest.raises(CliError, match=r'--token-file: .*No such file'):
        join_token('', tmp_path / 'none', env)


def test_a_node_that_is_told_of_the_clusters_name_server_becomes_one() -> None:
    assert names('', '127.160.0.1:10250') == []
    assert names('127.96.0.10', '127.160.0.1:10250') == [
        '--cluster-dns', '127.96.0.10', '--dns-listen', '127.160.0.1:10053',
    ]  # fmt: skip
