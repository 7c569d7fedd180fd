"""The `format` words that a custom resource's strings are checked against; any other word says nothing.

Source: apiextensions-apiserver pkg/apiserver/schema/... supported formats, kube-openapi pkg/validation/strfmt.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import date
from urllib.parse import urlsplit

from kcore.meta import names
from kcore.meta.times import parse_time

Check = Callable[[str], bool]
_UUID = r'[0-9a-f]{8}-?[0-9a-f]{4}-?%s[0-9a-f]{3}-?%s[0-9a-f]{3}-?[0-9a-f]{12}'
_DURATION = re.compile(r'[+-]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)')
"""One part of a Go duration."""
_WORDY = re.compile(r'\d+\s*(ns|us|µs|ms|s|sec|secs|seconds?|m|min|mins|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?)')


def _pattern(text: str) -> Check:
    compiled = re.compile(text, re.IGNORECASE)
    return lambda value: compiled.fullmatch(value) is not None


def _parses(parse: Callable[[str], object]) -> Check:
    def check(value: str) -> bool:
        try:
            parse(value)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


def is_duration(value: str) -> bool:
    """`1h30m`, `-5s`, `0`, and the long words that upstream takes (`2 days`)."""
    if value == '0' or _WORDY.fullmatch(value):
        return True
    return bool(value) and re.fullmatch(rf'[+-]?(?:{_DURATION.pattern[5:]})+', value) is not None


def _uri(value: str) -> bool:
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return bool(parts.scheme) or value.startswith('/')


FORMATS: Mapping[str, Check] = {
    'bsonobjectid': _pattern(r'[0-9a-f]{24}'),
    'uri': _uri,
    'email': _pattern(r'[^@\s<>]+@[^@\s<>]+'),
    'hostname': lambda value: not names.dns_subdomain(value.lower().rstrip('.')),
    'ipv4': _parses(ipaddress.IPv4Address),
    'ipv6': _parses(ipaddress.IPv6Address),
    'ip': _parses(ipaddress.ip_address),
    'cidr': lambda value: '/' in value and _parses(lambda v: ipaddress.ip_network(v, strict=False))(value),
    'mac': _pattern(r'([0-9a-f]{2}[:-]){5}[0-9a-f]{2}|([0-9a-f]{4}\.){2}[0-9a-f]{4}'),
    'uuid': _pattern(_UUID % ('[0-9a-f]', '[0-9a-f]')),
    'uuid3': _pattern(_UUID % ('3', '[0-9a-f]')),
    'uuid4': _pattern(_UUID % ('4', '[89ab]')),
    'uuid5': _pattern(_UUID % ('5', '[89ab]')),
    'isbn': _pattern(r'(\d[- ]?){9}[\dx]|(\d[- ]?){12}\d'),
    'isbn10': _pattern(r'(\d[- ]?){9}[\dx]'),
    'isbn13': _pattern(r'(\d[- ]?){12}\d'),
    'creditcard': _pattern(r'(\d[- ]?){12,18}\d'),
    'ssn': _pattern(r'\d{3}[- ]?\d{2}[- ]?\d{4}'),
    'hexcolor': _pattern(r'#?([0-9a-f]{3}|[0-9a-f]{6})'),
    'rgbcolor': _pattern(r'rgb\(\s*(\d{1,3}\s*,\s*){2}\d{1,3}\s*\)'),
    'byte': _parses(lambda value: base64.b64decode(value, validate=True)),
    'date': _parses(date.fromisoformat),
    'duration': is_duration,
    'datetime': _parses(parse_time),
    'date-time': _parses(parse_time),
    'k8s-short-name': lambda value: not names.dns_label(value),
    'k8s-long-name': lambda value: not names.dns_subdomain(value),
}
