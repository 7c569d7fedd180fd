"""Syntax of names, labels, keys and ports, with upstream's own texts for what is wrong.

Each check returns a tuple of complaints, empty when the value is fine, because one value can break several rules and
a 422 lists them all. Source of rules and texts: apimachinery/pkg/util/validation/validation.go.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping

Complaints = tuple[str, ...]
NameCheck = Callable[[str], Complaints]

LABEL_VALUE_MAX = 63
NAME_PART_MAX = 63
DNS_LABEL_MAX = 63
DNS_SUBDOMAIN_MAX = 253
CONFIG_KEY_MAX = 253
PORT_NAME_MAX = 15
ANNOTATIONS_MAX_BYTES = 256 * 1024

EMPTY = 'must be non-empty'
PORT_RANGE = 'must be between 1 and 65535, inclusive'

_LABEL = '[a-z0-9]([-a-z0-9]*[a-z0-9])?'
_LABEL_1035 = '[a-z]([-a-z0-9]*[a-z0-9])?'
_SUBDOMAIN = rf'{_LABEL}(\.{_LABEL})*'
_QUALIFIED = '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'
_CONFIG_KEY = '[-._a-zA-Z0-9]+'
_WILDCARD = rf'\*\.{_SUBDOMAIN}'
_label_re = re.compile(_LABEL)
_label_1035_re = re.compile(_LABEL_1035)
_subdomain_re = re.compile(_SUBDOMAIN)
_qualified_re = re.compile(_QUALIFIED)
_label_value_re = re.compile(f'({_QUALIFIED})?')
_config_key_re = re.compile(_CONFIG_KEY)
_wildcard_re = re.compile(_WILDCARD)
_env_name_re = re.compile('[ -<>-~]+')
_port_name_re = re.compile('[-a-z0-9]+')


def too_long(limit: int) -> str:
    return f'must be no more than {limit} characters'


def regex_error(message: str, pattern: str, *examples: str) -> str:
    if not examples:
        return f"{message} (regex used for validation is '{pattern}')"
    shown = ' or '.join(f"'{example}', " for example in examples)
    return f"{message} (e.g. {shown}regex used for validation is '{pattern}')"


_LABEL_ERROR = regex_error(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    'and must start and end with an alphanumeric character',
    _LABEL,
    'my-name',
    '123-abc',
)
_LABEL_1035_ERROR = regex_error(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    'and end with an alphanumeric character',
    _LABEL_1035,
    'my-name',
    'abc-123',
)
_SUBDOMAIN_ERROR = regex_error(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    'and must start and end with an alphanumeric character',
    _SUBDOMAIN,
    'example.com',
)
_WILDCARD_ERROR = regex_error(
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
    _WILDCARD,
    '*.example.com',
)
_QUALIFIED_ERROR = regex_error(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    _QUALIFIED,
    'MyName',
    'my.name',
    '123-abc',
)
_LABEL_VALUE_ERROR = regex_error(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    'and must start and end with an alphanumeric character',
    f'({_QUALIFIED})?',
    'MyValue',
    'my_value',
    '12345',
)
_CONFIG_KEY_ERROR = regex_error(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY,
    'key.name',
    'KEY_NAME',
    'key-name',
)


def _check(value: str, pattern: re.Pattern[str], limit: int, error: str) -> Complaints:
    long = (too_long(limit),) if len(value) > limit else ()
    return long if pattern.fullmatch(value) else (*long, error)


def dns_label(value: str) -> Complaints:
    """RFC 1123 label: names of namespaces, containers, volumes."""
    return _check(value, _label_re, DNS_LABEL_MAX, _LABEL_ERROR)


def dns_1035_label(value: str) -> Complaints:
    """RFC 1035 label: names of services."""
    return _check(value, _label_1035_re, DNS_LABEL_MAX, _LABEL_1035_ERROR)


def dns_subdomain(value: str) -> Complaints:
    """RFC 1123 subdomain: names of most objects."""
    return _check(value, _subdomain_re, DNS_SUBDOMAIN_MAX, _SUBDOMAIN_ERROR)


def wildcard_subdomain(value: str) -> Complaints:
    """`*.example.com`: hosts of an ingress rule."""
    return _check(value, _wildcard_re, DNS_SUBDOMAIN_MAX, _WILDCARD_ERROR)


def path_segment(value: str) -> Complaints:
    """Names that need only be safe in a URL: RBAC objects, whose names may hold colons."""
    if value in {'.', '..'}:
        return (f"may not be '{value}'",)
    return tuple(f"may not contain '{c}'" for c in ('/', '%') if c in value)


def label_key(value: str) -> Complaints:
    """A qualified name: `name` or `prefix.example.com/name`."""
    prefix, slash, name = value.rpartition('/')
    if '/' in prefix:
        return (f"a qualified name {_QUALIFIED_ERROR} with an optional DNS subdomain prefix and '/' "
                "(e.g. 'example.com/MyName')",)  # fmt: skip
    found: list[str] = []
    if slash:
        found += [f'prefix part {EMPTY}'] if not prefix else [f'prefix part {text}' for text in dns_subdomain(prefix)]
    if not name:
        found.append(f'name part {EMPTY}')
    elif len(name) > NAME_PART_MAX:
        found.append(f'name part {too_long(NAME_PART_MAX)}')
    if not _qualified_re.fullmatch(name):
        found.append(f'name part {_QUALIFIED_ERROR}')
    return tuple(found)


def label_value(value: str) -> Complaints:
    return _check(value, _label_value_re, LABEL_VALUE_MAX, _LABEL_VALUE_ERROR)


def config_key(value: str) -> Complaints:
    """A key of ConfigMap or Secret data; it must also be a safe file name."""
    found = _check(value, _config_key_re, CONFIG_KEY_MAX, _CONFIG_KEY_ERROR)
    if value in {'.', '..'}:
        return (*found, f"must not be '{value}'")
    return (*found, "must not start with '..'") if value.startswith('..') else found


def env_name(value: str) -> Complaints:
    """Any printable ASCII but `=` (the relaxed rule, on by default since 1.32)."""
    if not value:
        return ('environment variable name ' + EMPTY,)
    if _env_name_re.fullmatch(value):
        return ()
    return ("a valid environment variable name must consist only of printable ASCII characters other than '='",)


def port_name(value: str) -> Complaints:
    """IANA service name: `http`, `metrics-2`."""
    found: list[str] = []
    if len(value) > PORT_NAME_MAX:
        found.append(too_long(PORT_NAME_MAX))
    if not _port_name_re.fullmatch(value):
        found.append('must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)')
    if not any('a' <= c <= 'z' for c in value):
        found.append('must contain at least one letter (a-z)')
    if '--' in value:
        found.append('must not contain consecutive hyphens')
    if value and (value[0] == '-' or value[-1] == '-'):
        found.append('must not begin or end with a hyphen')
    return tuple(found)


def port_number(value: int) -> Complaints:
    return () if 1 <= value <= 65535 else (PORT_RANGE,)


def ip_address(value: str) -> Complaints:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return ('must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',)
    return ()


def generate_name(check: NameCheck) -> NameCheck:
    """The check for a `generateName`: a trailing dash is fine, because a suffix follows it."""

    def masked(value: str) -> Complaints:
        return check(value[:-1] + 'a' if value.endswith('-') else value)

    return masked


def labels(values: Mapping[str, str]) -> list[tuple[str, str]]:
    """(offending key or value, complaint) of a label map."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        found += [(key, text) for text in label_key(key)]
        found += [(value, text) for text in label_value(value)]
    return found
