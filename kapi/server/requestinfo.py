"""What a URL and a method ask for: verb, group, version, resource, namespace, name, subresource. Pure.

Source: apiserver pkg/endpoints/request/requestinfo.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qs, unquote

_VERBS = {'GET': 'get', 'HEAD': 'get', 'POST': 'create', 'PUT': 'update', 'PATCH': 'patch', 'DELETE': 'delete'}
_NAMESPACE_SUBRESOURCES = frozenset({'status', 'finalize'})
LONG_SUBRESOURCES = frozenset({'exec', 'attach', 'portforward', 'proxy', 'log'})
QUERY_FIELDS_MAX = 1_000
"""Query parameters of one request; more is 400."""
KNOWN_TARGETS_MAX, KNOWN_TARGET_CHARS_MAX = 4_096, 512
"""Request targets whose meaning is remembered, and the longest one that is."""


class RequestInfo(NamedTuple):
    path: str
    verb: str
    """get, list, watch, create, update, patch, delete, deletecollection; else the method in lower case."""
    query: Mapping[str, Sequence[str]]
    is_resource: bool = False
    group: str = ''
    version: str = ''
    namespace: str = ''
    plural: str = ''
    name: str = ''
    subresource: str = ''
    rest: str = ''
    """What follows the subresource (proxy paths)."""

    @property
    def long_running(self) -> bool:
        return self.verb == 'watch' or self.subresource in LONG_SUBRESOURCES


def of(method: str, target: str) -> RequestInfo:
    """What a request line asks for. Raises ValueError: too many parameters."""
    return _remembered(method, target) if len(target) <= KNOWN_TARGET_CHARS_MAX else _of(method, target)


def _of(method: str, target: str) -> RequestInfo:
    return parse(method, *parse_target(target))


_remembered = lru_cache(KNOWN_TARGETS_MAX)(_of)


def parse_target(target: str) -> tuple[str, dict[str, list[str]]]:
    """(decoded path, query) of a request target. Raises ValueError: too many parameters."""
    path, _, query = target.partition('?')
    if '://' in path and not path.startswith('/'):  # as to a proxy
        path = '/' + path.partition('://')[2].partition('/')[2]
    if '%' in path:
        path = unquote(path)
    if not query:
        return path, {}
    return path, parse_qs(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)


def parse(method: str, path: str, query: Mapping[str, Sequence[str]]) -> RequestInfo:
    parts = path.strip('/').split('/')
    if parts[0] == 'api' and len(parts) > 2:
        group, version, rest = '', parts[1], parts[2:]
    elif parts[0] == 'apis' and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(path, method.lower(), query)
    verb = _VERBS.get(method, method.lower())
    watch_path = rest[0] == 'watch' and len(rest) > 1
    if watch_path:
        rest = rest[1:]
    namespace = ''
    if rest[0] == 'namespaces' and len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = rest[0], rest[1] if len(rest) > 1 else '', rest[2] if len(rest) > 2 else ''
    if verb == 'get' and not subresource:
        verb = _read_verb(name, query, watch_path=watch_path)
    elif verb == 'delete' and not name:
        verb = 'deletecollection'
    if plural == 'namespaces' and not group and not namespace:
        namespace = name
    return RequestInfo(
        path, verb, query, True, group, version, namespace, plural, name, subresource, '/'.join(rest[3:])
    )


def _read_verb(name: str, query: Mapping[str, Sequence[str]], *, watch_path: bool) -> str:
    values = query.get('watch')
    if watch_path or (values and values[0].lower() not in {'0', 'false'}):
        return 'watch'
    return 'get' if name else 'list'
