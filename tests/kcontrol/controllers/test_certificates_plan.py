"""What a node may serve as without being asked."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509

from kclient.certificates import NODE_CLIENT_SIGNER, NODE_SERVING_SIGNER, new_key, request
from kcontrol.controllers.certificates.plan import asked_permission, serves_only


def parsed(csr: dict) -> x509.CertificateSigningRequest:
    return x509.load_pem_x509_csr(base64.b64decode(csr['spec']['request']))


def serving(*names: str, user: str = 'system:node:n1') -> dict:
    csr = request(new_key(), user, ('system:nodes',), signer=NODE_SERVING_SIGNER, serves=names)
    return {**csr, 'spec': {**csr['spec'], 'username': 'system:node:n1'}}


@pytest.mark.parametrize(('names', 'own'), [
    (('n1', '10.0.0.1'), True), (('10.0.0.1',), True), (('n1',), True),
    (('kubernetes', '10.0.0.1'), False), (('n2', '10.0.0.1'), False), (('n1', '10.0.0.9'), False),
    (('n1', '10.96.0.1'), False),
])  # fmt: skip
def test_a_node_serves_only_under_its_own_name_and_at_nobody_elses_address(names: tuple[str, ...], own: bool):
    assert serves_only(parsed(serving(*names)), {'10.0.0.9', '10.96.0.1'}) is own


def test_a_serving_certificate_is_asked_for_by_the_node_itself():
    mine, foreign = serving('n1'), serving('n2', user='system:node:n2')
    assert (asked_permission(mine, parsed(mine)) or {})['subresource'] == 'selfnodeserver'
    assert asked_permission(foreign, parsed(foreign)) is None


def test_a_client_certificate_of_another_node_needs_the_permission_of_a_bootstrapper():
    csr = request(new_key(), 'system:node:n2', ('system:nodes',), signer=NODE_CLIENT_SIGNER)
    for user, kind in (('system:bootstrap:abcdef', 'nodeclient'), ('system:node:n2', 'selfnodeclient')):
        asked = {**csr, 'spec': {**csr['spec'], 'username': user}}
        assert (asked_permission(asked, parsed(asked)) or {})['subresource'] == kind
