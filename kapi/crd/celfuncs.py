"""Functions that Kubernetes adds to CEL: quantities, addresses, URLs, regular expressions, lists.

Opaque values (a quantity, an IP) are maps with one private key, because the evaluator knows only JSON-like values.
Source: apiserver pkg/cel/library.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cel import stdlib

from kapi.crd.celtext import CONVERSIONS, text
from kcore.meta.quantity import QuantityError, parse

Obj = dict[str, Any]
_QUANTITY, _IP, _CIDR, _URL = '@quantity', '@ip', '@cidr', '@url'
FOUND_MAX = 10_000
"""Matches that `findAll` returns at most."""


def _quantity(text: str) -> Obj:
    try:
        return {_QUANTITY: str(parse(text))}
    except QuantityError as e:
        raise ValueError(f'quantity is not valid: {e}') from None


def _is(make: Callable[[str], Any]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        try:
            make(value)
        except (ValueError, TypeError):
            return False
        return True

    return check


def _amount(value: Any) -> Decimal:
    if isinstance(value, Mapping) and _QUANTITY in value:
        return Decimal(value[_QUANTITY])
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Decimal(value)
    raise TypeError('no such overload: expected a quantity')


def _compare(a: Any, b: Any) -> int:
    x, y = _amount(a), _amount(b)
    return (x > y) - (x < y)


def _as_integer(a: Any) -> int:
    amount = _amount(a)
    if amount != amount.to_integral_value():
        raise ValueError('cannot convert value to integer')
    return int(amount)


def _sign(a: Any) -> int:
    return _compare(a, 0)


def _ip(text: str) -> Obj:
    return {_IP: str(ipaddress.ip_address(text))}


def _cidr(text: str) -> Obj:
    if '/' not in text:
        raise ValueError(f'network address parse error during conversion from string: {text}')
    return {_CIDR: str(ipaddress.ip_interface(text))}


def _address(value: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(value[_IP] if isinstance(value, Mapping) else value)


def _network(value: Any) -> Any:
    return ipaddress.ip_interface(value[_CIDR] if isinstance(value, Mapping) else value).network


def _family(value: Any) -> int:
    return int(_address(value).version) if _IP in value else int(_network(value).version)


def _contains_cidr(outer: Any, inner: Any) -> bool:
    a, b = _network(outer), _network(inner)
    return a.version == b.version and bool(b.subnet_of(a))


def _contains_ip(outer: Any, inner: Any) -> bool:
    return _address(inner) in _network(outer)


def _url(text: str) -> Obj:
    parts = urlsplit(text)
    if not parts.scheme and not text.startswith('/'):
        raise ValueError(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')
    return {_URL: text}


def _of_url(part: Callable[[Any], Any]) -> Callable[[Obj], Any]:
    return lambda value: part(urlsplit(value[_URL]))


def _find(text: str, regex: str) -> str:
    found = re.search(regex, text)
    return found.group() if found else ''


def _find_all(text: str, regex: str, limit: int = -1) -> list[str]:
    found = [m.group() for _, m in zip(range(FOUND_MAX), re.finditer(regex, text), strict=False)]
    return found if limit < 0 else found[:limit]


def _is_sorted(items: list[Any]) -> bool:
    return all(a <= b for a, b in pairwise(items))


def _index_of(where: Any, what: Any, *rest: int) -> int:
    if isinstance(where, str):
        return stdlib.index_of(where, what, *rest)
    return where.index(what) if what in where else -1


def _last_index_of(where: Any, what: Any, *rest: int) -> int:
    if isinstance(where, str):
        return stdlib.last_index_of(where, what, *rest)
    return len(where) - 1 - where[::-1].index(what) if what in where else -1


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    'escapeKey': lambda _jsonpatch, key: str(key).replace('~', '~0').replace('/', '~1'),
    **stdlib.STDLIB_FUNCTIONS,
    **CONVERSIONS, '_string': text,
    'indexOf': _index_of, 'lastIndexOf': _last_index_of, 'isSorted': _is_sorted,
    'find': _find, 'findAll': _find_all,
    'quantity': _quantity, 'isQuantity': _is(_quantity), 'isInteger': _is(_as_integer), 'asInteger': _as_integer,
    'asApproximateFloat': lambda a: float(_amount(a)), 'sign': _sign, 'compareTo': _compare,
    'isGreaterThan': lambda a, b: _compare(a, b) > 0, 'isLessThan': lambda a, b: _compare(a, b) < 0,
    'add': lambda a, b: {_QUANTITY: str(_amount(a) + _amount(b))},
    'sub': lambda a, b: {_QUANTITY: str(_amount(a) - _amount(b))},
    'ip': _ip, 'isIP': _is(_ip), 'cidr': _cidr, 'isCIDR': _is(_cidr), 'family': _family,
    'containsIP': _contains_ip, 'containsCIDR': _contains_cidr,
    'prefixLength': lambda value: int(_network(value).prefixlen),
    'isLoopback': lambda value: _address(value).is_loopback,
    'isUnspecified': lambda value: _address(value).is_unspecified,
    'isLinkLocalUnicast': lambda value: _address(value).is_link_local,
    'url': _url, 'isURL': _is(_url), 'getScheme': _of_url(lambda u: u.scheme), 'getHost': _of_url(lambda u: u.netloc),
    'getHostname': _of_url(lambda u: u.hostname or ''), 'getPort': _of_url(lambda u: str(u.port or '')),
    'getEscapedPath': _of_url(lambda u: u.path), 'getQuery': _of_url(lambda u: parse_qs(u.query)),
}  # fmt: skip
