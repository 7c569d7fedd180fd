"""Golden scenarios: what the cores say in each situation, reviewed as text (`--rewrite` regenerates)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kstore import datadriven
from tests.kstore.raft.scenario import Scenario

GOLDEN = sorted((Path(__file__).parents[2] / 'golden' / 'raft').glob('*.txt'))


@pytest.mark.parametrize('path', GOLDEN, ids=lambda p: p.stem)
def test_scenario(path: Path, rewrite: bool) -> None:
    datadriven.run(path, Scenario().handle, rewrite=rewrite)


def test_there_are_scenarios() -> None:
    assert len(GOLDEN) >= 12


def test_a_scenario_that_differs_is_reported(tmp_path: Path) -> None:
    path = tmp_path / 'wrong.txt'
    path.write_text('add-nodes 1\n----\nnot this\n')
    with pytest.raises(AssertionError, match='add-nodes'):
        datadriven.run(path, Scenario().handle, rewrite=False)
    datadriven.run(path, Scenario().handle, rewrite=True)
    assert path.read_text() == 'add-nodes 1\n----\nok\n'
