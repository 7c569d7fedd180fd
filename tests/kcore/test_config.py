"""Settings from flags and environment, and one clear line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from kcore.config import Address, Config


class Example(Config):
    """An example process."""

    model_config = SettingsConfigDict(env_prefix='EXAMPLE_')

    id: int = Field(gt=0, description='Number of this member.')
    listen: Address = '127.0.0.1:0'
    data_dir: Path = Path('data')
    peers: dict[int, str] = Field(default_factory=dict)
    servers: tuple[str, ...] = ()
    fast: bool = False


def load(*argv: str) -> Example:
    return Example.load(argv, prog='example')


def test_flags_become_typed_fields() -> None:
    config = load('--id', '2', '--peers', '1=a:1,2=b:2', '--servers', 'x, y', '--fast', '--data-dir', '/d')
    assert (config.id, config.peers, config.servers, config.fast) == (2, {1: 'a:1', 2: 'b:2'}, ('x', 'y'), True)
    assert config.data_dir == Path('/d')


def test_the_environment_fills_in_and_a_flag_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('EXAMPLE_ID', '7')
    assert load().id == 7
    assert load('--id', '8').id == 8


@pytest.mark.parametrize(
    ('argv', 'line'),
    [
        (('--id', '0'), 'example: --id: Input should be greater than 0'),
        (('--id', '1', '--listen', 'nowhere'), 'example: --listen: must be HOST:PORT, for example 127.0.0.1:6443'),
        ((), 'example: --id: Field required'),
    ],
)
def test_a_mistake_is_one_line_that_names_the_flag(
    argv: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        load(*argv)
    assert exit_.value.code == 2
    assert capsys.readouterr().err.strip() == line


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load('--id', '1', '--nonsense', '3')
    assert '--nonsense' in capsys.readouterr().err


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match='frozen'):
        load('--id', '1').id = 2  # type: ignore[misc]
