"""Syntax checks and their texts."""

import pytest

from kcore.meta import names


@pytest.mark.parametrize(
    ('check', 'good', 'bad'),
    [
        (names.dns_label, 'my-name', 'My_name'),
        (names.dns_label, 'a' * 63, 'a' * 64),
        (names.dns_1035_label, 'a1', '1a'),
        (names.dns_subdomain, 'a.b-c', 'a..b'),
        (names.label_key, 'example.com/Name', 'a/b/c'),
        (names.label_key, 'x' * 63, '/x'),
        (names.label_value, '', '-x'),
        (names.config_key, '.a_B', '..x'),
        (names.config_key, 'a', 'a b'),
        (names.env_name, 'my.env NAME', 'a=b'),
        (names.port_name, 'http-2', 'HTTP'),
        (names.port_name, 'a', 'a--b'),
        (names.ip_address, '::1', '300.1.1.1'),
        (names.path_segment, 'system:x', 'a/b'),
        (names.wildcard_subdomain, '*.foo.com', 'foo.com'),
    ],
)
def test_each_syntax_accepts_the_good_and_names_the_bad(check, good, bad):
    assert check(good) == ()
    assert check(bad)


def test_the_text_of_a_bad_label_is_upstreams():
    assert names.dns_label('A') == (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "  # noqa: E501
        "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",  # noqa: E501
    )


def test_a_generate_name_may_end_in_a_dash():
    assert names.generate_name(names.dns_label)('web-') == ()
    assert names.generate_name(names.dns_label)('Web-')
