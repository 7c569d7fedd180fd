"""Shapes, ports and addresses of local clusters."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from kcore.env import Env
from kctl.local import claims
from kctl.local.cluster import check_ports, prepare, shape
from kctl.local.components import Component, Plan
from kctl.local.layout import ClusterError, Layout

ENV = Env.real()


def start(data: Path, **flags: int | None) -> Layout:
    wanted = {'stores': None, 'nodes': None, 'port_base': None, **flags}
    return shape(data, ENV, **wanted)  # type: ignore[arg-type]


def test_the_first_api_server_listens_on_6443(tmp_path: Path) -> None:
    assert start(tmp_path).api_urls() == ['https://127.0.0.1:6443']


def test_no_two_components_share_an_address(tmp_path: Path) -> None:
    layout = start(tmp_path, stores=9, nodes=20)
    components = Plan(layout, ENV).components()
    addresses = [layout.address(c.role, c.number) for c in components] + [layout.store_http(n) for n in range(1, 10)]
    assert len(addresses) == len(set(addresses))


def test_clusters_a_hundred_ports_apart_share_no_pod_service_or_node_address(tmp_path: Path) -> None:
    one, two = Layout(tmp_path, port_base=6400), Layout(tmp_path, port_base=6500)
    assert one.cluster_cidr != two.cluster_cidr
    assert one.service_cidr != two.service_cidr
    assert one.node_address(1) != two.node_address(1)


def test_a_directory_remembers_its_shape(tmp_path: Path) -> None:
    first = start(tmp_path, stores=1, nodes=3, port_base=7000)
    first.save(ENV)
    assert start(tmp_path) == first


def test_the_number_of_nodes_may_change(tmp_path: Path) -> None:
    start(tmp_path).save(ENV)
    assert start(tmp_path, nodes=5).nodes == 5


@pytest.mark.parametrize(('flag', 'value'), [('stores', 5), ('port_base', 9000)])
def test_what_is_part_of_the_data_may_not_change(tmp_path: Path, flag: str, value: int) -> None:
    start(tmp_path).save(ENV)
    with pytest.raises(ClusterError, match='--data-dir'):
        start(tmp_path, **{flag: value})


@pytest.mark.parametrize(('flag', 'value'), [('stores', 0), ('stores', 10), ('nodes', -1), ('port_base', 80)])
def test_a_senseless_number_is_refused_by_the_name_of_its_flag(tmp_path: Path, flag: str, value: int) -> None:
    with pytest.raises(ClusterError, match='--' + flag.replace('_', '-')):
        start(tmp_path, **{flag: value})


def test_a_damaged_cluster_file_is_named(tmp_path: Path) -> None:
    (tmp_path / 'cluster.json').write_text('{"stores":')
    with pytest.raises(ClusterError, match=r'cluster\.json is damaged'):
        start(tmp_path)


def unclaimed() -> int:
    """A port base whose block no cluster of this machine has; of two workers of pytest none gets the other's."""
    taken = {claim.block for claim in claims.claims(ENV)}
    bases = range(26040, 29240, 100)
    start = os.getpid() % len(bases)
    return next(b for b in (*bases[start:], *bases[:start]) if Layout(Path(), port_base=b).block not in taken)


@pytest.mark.parametrize('further', [3200, 10])
def test_a_cluster_with_the_addresses_of_one_that_runs_is_refused_by_both_names(tmp_path: Path, further: int) -> None:
    mine = unclaimed()
    base = mine + further
    one, two = Layout(tmp_path / 'one', port_base=mine), Layout(tmp_path / 'two', port_base=base)
    assert one.node_address(1) == two.node_address(1)
    with claims.held(one, ENV):
        with pytest.raises(ClusterError) as refused:
            prepare(two, ENV)
        for text in (
            f'{two.data} (--port-base {base})',
            f'{str(one.data)[-30:]} (--port-base {mine}',
            two.cluster_cidr,
        ):
            assert text in str(refused.value)
        claims.check(replace(two, port_base=int(str(refused.value).rpartition('--port-base ')[2][:-1])), ENV)
        claims.check(replace(two, nodes=0), ENV)
        claims.check(one, ENV)  # another machine of the same cluster
        with pytest.raises(ClusterError), claims.held(two, ENV):
            raise AssertionError('unreachable')
    claims.check(two, ENV)


def test_a_name_that_only_looks_like_a_claim_stops_nobody() -> None:
    with socket.socket(socket.AF_UNIX) as stray:
        stray.bind(f'\0{claims.PREFIX}mine')
        assert 'mine' not in [claim.data for claim in claims.claims(ENV)]


def test_a_data_directory_with_a_long_name_claims_its_addresses_too(tmp_path: Path) -> None:
    deep = tmp_path / ('x y' * 60) / 'end'
    base = unclaimed()
    refused = pytest.raises(ClusterError, match=rf'x y/end \(--port-base {base}')
    with claims.held(Layout(deep, port_base=base), ENV), refused:
        claims.check(Layout(tmp_path, port_base=base + 3200), ENV)


def test_a_taken_port_is_named_together_with_the_way_out(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        layout = Layout(tmp_path, port_base=taken.getsockname()[1] - 3)
        with pytest.raises(
            ClusterError, match=f'api-1 needs 127.0.0.1:{layout.port_base + 3}, which is taken.*port-base'
        ):
            check_ports(layout, [Component('api-1', 'api', 1, ())])
