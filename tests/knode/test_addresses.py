"""Pod addresses and the image catalogue."""

from __future__ import annotations

import pytest

from knode.addresses import AddressPool
from knode.errors import ImageError, InvalidImageName, NoAddress
from knode.images.catalogue import resolve


def test_each_pod_has_one_address_of_the_range():
    pool = AddressPool()
    with pytest.raises(NoAddress):
        pool.take('a')
    pool.set_cidr('127.64.3.0/29')
    assert [pool.take(u) for u in 'abca'] == ['127.64.3.2', '127.64.3.3', '127.64.3.4', '127.64.3.2']


def test_addresses_come_back_as_late_as_possible_and_adopted_ones_are_kept():
    pool = AddressPool()
    pool.set_cidr('127.64.3.0/29')
    pool.adopt('old', '127.64.3.3')
    assert pool.take('a') == '127.64.3.2'
    pool.release('a')
    assert [pool.take(u) for u in 'bcd'] == ['127.64.3.4', '127.64.3.5', '127.64.3.6']
    assert pool.take('e') == '127.64.3.2'
    with pytest.raises(NoAddress, match='no address left'):
        pool.take('f')


@pytest.mark.parametrize(
    'name', ['busybox', 'busybox:1.36', 'docker.io/library/busybox:1', 'registry.k8s.io/pause:3.9', 'nginx']
)
def test_well_known_names_resolve_with_any_tag(name):
    assert resolve(name).reference == name


@pytest.mark.parametrize('name', ['nosuch', 'example.com/acme/nginx:1', 'host:/no/such/file'])
def test_an_unknown_image_is_not_found(name):
    with pytest.raises(ImageError, match='not found'):
        resolve(name)


@pytest.mark.parametrize('name', ['UPPER', 'a b', 'py://nofunction', 'host:relative', ''])
def test_what_is_no_reference_is_refused_as_such(name):
    with pytest.raises(InvalidImageName):
        resolve(name)


def test_programs_and_functions_resolve_to_what_runs_them():
    assert resolve('host:/bin/sh').entrypoint == ('/bin/sh',)
    assert resolve('py://a.b:c').entrypoint[-1] == 'a.b:c'
