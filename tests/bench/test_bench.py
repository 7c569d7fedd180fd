"""Every benchmark runs, and says what DESIGN §9 asks for, so that none rots; and the load generator's codec."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import store
from bench.common import Figures, Result, etcds
from bench.grpc import fields, integer, message, part

ROOT = Path(__file__).parents[2]


def bench(*argv: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, '-m', 'bench', *argv, '--smoke', '--seconds', '0.1'],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    'name', ['put', 'get', 'watch', 'cas', 'lease', 'failover', 'schedule', 'authz', 'chain', 'fairness', 'proxy']
)
def test_a_benchmark_runs_and_prints_figures(name: str):
    figures = bench(name)
    assert figures
    for figure in figures:
        assert {'bench', 'case', 'metric', 'value', 'runs'} <= figure.keys()


@pytest.mark.skipif(not etcds(), reason='no etcd on this machine')
@pytest.mark.parametrize('name', ['watch', 'lease'])
def test_a_comparison_names_peer_value_and_ratio(name: str):
    compared = [f for f in bench(name, '--vs', 'etcd') if 'peer' in f]
    assert compared
    for figure in compared:
        assert str(figure['peer']).startswith('etcd 3.')
        assert isinstance(figure['peer_value'], float | int)
        assert 'ratio' in figure


def test_protobuf_fields_come_back_as_they_were_written():
    kv = message((1, b'key'), (3, 300), (5, b'\x00' * 200))
    assert dict(fields(kv)) == {1: b'key', 3: 300, 5: bytes(200)}
    nested = message((2, kv), (3, 1))
    assert integer(part(nested, 2), 3) == 300
    assert message((1, 0), (2, b'')) == b''  # zeros are left out
    assert (integer(b'', 7), part(b'', 7)) == (0, b'')


def test_the_table_of_the_store_says_which_targets_are_met() -> None:
    def figures(**values: float) -> Figures:
        found = Figures()
        found.add(**values)
        return found

    results = [
        Result(
            'put', '100 clients', figures(ops_per_s=900, p99_ms=10), ('etcd 3.5.1', figures(ops_per_s=1000, p99_ms=20))
        ),
        Result('failover', store.FAILOVER, figures(median_ms=90), ('etcd 3.5.1', figures(median_ms=1200))),
        Result('cas', '16 contenders', figures(wins_per_s=800), None),
    ]
    assert store.table(results)[2:] == [
        '| put, 100 clients | ops_per_s | ≥ 1× | 900.0 | 1,000.0 (etcd 3.5.1) | 0.90 | **no** |',
        '| put, 100 clients | p99_ms | ≤ 1× | 10.0 | 20.0 (etcd 3.5.1) | 0.50 | yes |',
        '| cas, 16 contenders | wins_per_s | ≥ 4× | 800.0 | – | – | – |',
        '| failover, kill -9 leader, 20 trials | median_ms | ≤ 500 | 90.0 | 1,200.0 (etcd 3.5.1) | 0.07 | yes |',
    ]
