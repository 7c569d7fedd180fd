"""Which ports `kctl port-forward` is about."""

from __future__ import annotations

import pytest

from kctl.verbs.lib.errors import CliError
from kctl.verbs.port_forward import Forward, parse

POD = {'metadata': {'name': 'p'}, 'spec': {'containers': [{'ports': [{'name': 'http', 'containerPort': 8080}]}]}}
SERVICE = {'metadata': {'name': 's'}, 'spec': {'ports': [{'port': 80, 'targetPort': 'http'}, {'name': 'x', 'port': 9}]}}


@pytest.mark.parametrize(
    ('text', 'service', 'local', 'remote'),
    [
        ('80', None, 80, 80),
        ('8000:80', None, 8000, 80),
        (':80', None, 0, 80),
        ('http', None, 8080, 8080),
        ('1:http', None, 1, 8080),
        ('7:80', SERVICE, 7, 8080),
        (':x', SERVICE, 0, 9),
    ],
)
def test_ports_are_numbers_or_names(text, service, local, remote):
    assert parse(text, POD, service) == Forward(local, remote)


@pytest.mark.parametrize(
    ('text', 'service'), [('a:80', None), ('99999', None), ('none', None), (':1', SERVICE), ('0:0', None)]
)
def test_what_is_no_port_is_said(text, service):
    with pytest.raises(CliError):
        parse(text, POD, service)
