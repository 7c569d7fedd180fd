"""Certificates that the cluster makes for itself."""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from kapi.storage.encryption import load_keys
from kcore.env import Env
from kctl.local.layout import ClusterError
from kctl.local.pki import LEAF_DAYS, RENEW_BEFORE_DAYS, Authority, Leaf, kubeconfig

NODE = Leaf('node-1', 'system:node:node-1', ('system:nodes',), ('node-1', '127.128.0.1'))


class FixedClock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def wall(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.now.timestamp()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def authority(tmp_path: Path, clock: FixedClock) -> Authority:
    return Authority(tmp_path / 'pki', replace(Env.real(), clock=clock))


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_user_is_the_common_name_and_each_group_an_organization(authority: Authority) -> None:
    certificate = load(authority.ensure(NODE)[0])
    names = [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    assert (names, groups) == (['system:node:node-1'], ['system:nodes'])


def test_a_leaf_is_signed_by_the_authority_and_serves_under_its_names(authority: Authority) -> None:
    certificate = load(authority.ensure(NODE)[0])
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate_pem))
    served = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(n.value) for n in served] == ['node-1', '127.128.0.1']


def test_openssl_accepts_what_was_made(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.ensure(NODE)
    context = ssl.create_default_context(cafile=str(tmp_path / 'pki' / 'ca.crt'))
    context.load_cert_chain(certificate, key)


def test_a_second_start_keeps_authority_and_leaves(authority: Authority, tmp_path: Path) -> None:
    before = authority.ensure(NODE)[0].read_bytes()
    again = Authority(tmp_path / 'pki', Env.real())
    assert again.certificate_pem == authority.certificate_pem
    assert again.ensure(NODE)[0].read_bytes() == before


def test_a_leaf_near_its_end_is_made_anew(authority: Authority, clock: FixedClock) -> None:
    before = authority.ensure(NODE)[0].read_bytes()
    clock.now += timedelta(days=LEAF_DAYS - RENEW_BEFORE_DAYS + 1)
    assert authority.ensure(NODE)[0].read_bytes() != before


def test_a_damaged_leaf_is_made_anew(authority: Authority) -> None:
    certificate = authority.ensure(NODE)[0]
    certificate.write_text('x')
    assert load(authority.ensure(NODE)[0]).subject


def test_a_damaged_authority_is_one_sentence_that_names_the_folder(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / 'pki' / 'ca.crt').write_text('x')
    with pytest.raises(ClusterError, match=r'ca\.crt is damaged'):
        Authority(tmp_path / 'pki', Env.real())


def test_a_new_address_makes_a_new_certificate(authority: Authority) -> None:
    before = authority.ensure(NODE)[0].read_bytes()
    moved = replace(NODE, serves=('node-1', '127.128.0.9'))
    assert authority.ensure(moved)[0].read_bytes() != before


def test_keys_and_kubeconfigs_are_for_the_owner_only(authority: Authority) -> None:
    key = authority.ensure(NODE)[1]
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_kubeconfig_has_one_context_a_server(authority: Authority) -> None:
    text = kubeconfig(['https://a:1', 'https://b:2'], authority.certificate_pem, b'c', b'k', 'me')
    document = yaml.safe_load(text)
    assert document['current-context'] == 'kubeling'
    assert [c['name'] for c in document['contexts']] == ['kubeling', 'kubeling-2']
    assert [c['cluster']['server'] for c in document['clusters']] == ['https://a:1', 'https://b:2']


def test_a_rotation_that_was_cut_short_leaves_the_old_authority_at_work(authority: Authority, tmp_path: Path) -> None:
    key = tmp_path / 'pki' / 'ca.key'
    old = key.read_bytes()
    authority.rotate()
    key.write_bytes(old)  # as if the last of its writes had not come to be
    again = Authority(tmp_path / 'pki', Env.real())
    served = load(again.ensure(NODE)[0])
    served.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate_pem))


def test_a_key_that_belongs_to_no_listed_authority_is_named(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / 'pki' / 'ca.key').write_bytes(authority.ensure(NODE)[1].read_bytes())
    with pytest.raises(ClusterError, match=r'ca\.key does not belong to'):
        Authority(tmp_path / 'pki', Env.real())


def test_a_new_key_for_secrets_comes_first_under_a_name_that_was_never_used(authority: Authority) -> None:
    file = authority.secret_keys('keys')
    authority.renew_secret_keys('keys')
    file.write_text(file.read_text().splitlines()[0] + '\n')
    authority.renew_secret_keys('keys')
    assert list(load_keys(file, Env.real())) == ['key-3', 'key-2']
