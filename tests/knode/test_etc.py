"""Files of /etc that tell a container of its pod."""

from __future__ import annotations

import pytest

from knode.volumes import etc


def test_a_hosts_file_names_the_pod_and_its_aliases(make_pod):
    aliases = [{'ip': '1.2.3.4', 'hostnames': ['a', 'b']}]
    text = etc.hosts(make_pod(hostname='h', subdomain='s', hostAliases=aliases), '127.64.0.2', 'unused')
    assert text.startswith('# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n')
    assert '\n127.64.0.2\th.s.default.svc.cluster.local\th\n' in text
    assert text.endswith('\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n')


def test_a_pod_of_the_host_network_keeps_the_hosts_of_its_machine(make_pod):
    text = etc.hosts(make_pod(hostNetwork=True), '10.0.0.1', '127.0.0.1 machine\n')
    assert text == '# Kubernetes-managed hosts file (host network).\n127.0.0.1 machine\n'


@pytest.mark.parametrize(
    ('spec', 'name'),
    [
        ({}, 'p'),
        ({'hostname': 'h'}, 'h'),
        ({'hostname': 'h', 'subdomain': 's'}, 'h'),
        ({'hostname': 'h', 'subdomain': 's', 'setHostnameAsFQDN': True}, 'h.s.default.svc.cluster.local'),
        ({'setHostnameAsFQDN': True}, 'p'),
        ({'hostNetwork': True}, ''),
        ({'hostname': 'x' * 62 + '-y'}, 'x' * 62),
    ],
)
def test_a_pod_has_a_name_of_its_own(make_pod, spec, name):
    assert etc.hostname(make_pod(**spec)) == name


OF_MACHINE = '# comment\nnameserver 9.9.9.9\nsearch home\noptions ndots:1 rotate\n'


@pytest.mark.parametrize(
    ('spec', 'text'),
    [
        ({}, ''),
        ({'dnsPolicy': 'ClusterFirst'}, ''),
        ({'dnsPolicy': 'None', 'dnsConfig': {'nameservers': ['1.1.1.1'], 'searches': ['a.b']}},
         'nameserver 1.1.1.1\nsearch a.b\n'),
        ({'dnsPolicy': 'Default', 'dnsConfig': {'nameservers': ['1.1.1.1'], 'searches': ['home', 'work'],
                                                'options': [{'name': 'ndots', 'value': '3'}, {'name': 'debug'}]}},
         'nameserver 9.9.9.9\nnameserver 1.1.1.1\nsearch home work\noptions ndots:3 rotate debug\n'),
    ],
)  # fmt: skip
def test_a_pod_configures_its_resolver(make_pod, spec, text):
    assert etc.resolver(make_pod(**spec), OF_MACHINE) == text


CLUSTER = 'nameserver 127.96.0.10\n'
DOMAINS = 'search default.svc.cluster.local svc.cluster.local cluster.local'


@pytest.mark.parametrize(
    ('spec', 'text'),
    [
        ({}, f'{CLUSTER}{DOMAINS} home\noptions ndots:5\n'),
        ({'dnsPolicy': 'ClusterFirst', 'hostNetwork': True}, ''),
        ({'dnsPolicy': 'ClusterFirstWithHostNet', 'hostNetwork': True}, f'{CLUSTER}{DOMAINS} home\noptions ndots:5\n'),
        ({'dnsPolicy': 'Default'}, ''),
        ({'dnsPolicy': 'None', 'dnsConfig': {'nameservers': ['1.1.1.1']}}, 'nameserver 1.1.1.1\n'),
        ({'dnsConfig': {'nameservers': ['1.1.1.1', '2.2.2.2', '3.3.3.3'], 'searches': ['work', 'cluster.local'],
                        'options': [{'name': 'ndots', 'value': '2'}, {'name': 'edns0'}]}},
         f'{CLUSTER}nameserver 1.1.1.1\nnameserver 2.2.2.2\n{DOMAINS} home work\noptions ndots:2 edns0\n'),
    ],
)  # fmt: skip
def test_where_the_cluster_has_a_name_server_policies_bring_it_with_its_domains(make_pod, spec, text):
    assert etc.resolver(make_pod(**spec), OF_MACHINE, '127.96.0.10') == text
