"""Which FlowSchema a request matches, and which flow it belongs to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kapi.authn.user import User
from kapi.server.requestinfo import RequestInfo

Obj = dict[str, Any]


def matches(schema: Obj, info: RequestInfo, user: User) -> bool:
    return any(_rule(r, info, user) for r in schema['spec'].get('rules') or ())


def flow_of(schema: Obj, info: RequestInfo, user: User) -> str:
    """What tells the request from others of its schema: user, namespace or nothing."""
    match (schema['spec'].get('distinguisherMethod') or {}).get('type'):
        case 'ByUser':
            return user.name
        case 'ByNamespace':
            return info.namespace
    return ''


def _rule(rule: Obj, info: RequestInfo, user: User) -> bool:
    if not any(_subject(s, user) for s in rule.get('subjects') or ()):
        return False
    if info.is_resource:
        return any(_resource(r, info) for r in rule.get('resourceRules') or ())
    return any(
        _has(r.get('verbs'), info.verb) and any(_path(p, info.path) for p in r.get('nonResourceURLs') or ())
        for r in rule.get('nonResourceRules') or ()
    )


def _subject(subject: Obj, user: User) -> bool:
    """One that lacks what its kind needs, stored before that was checked, is nobody."""
    match subject:
        case {'kind': 'User', 'user': {'name': name}}:
            return name in {'*', user.name}
        case {'kind': 'Group', 'group': {'name': name}}:
            return name == '*' or name in user.groups
        case {'kind': 'ServiceAccount', 'serviceAccount': {'namespace': namespace, 'name': name}}:
            prefix = f'system:serviceaccount:{namespace}:'
            return user.name.startswith(prefix) and name in {'*', user.name.removeprefix(prefix)}
    return False


def _resource(rule: Obj, info: RequestInfo) -> bool:
    full = f'{info.plural}/{info.subresource}' if info.subresource else info.plural
    if not (_has(rule.get('verbs'), info.verb) and _has(rule.get('apiGroups'), info.group)
            and _has(rule.get('resources'), full)):  # fmt: skip
        return False
    return _has(rule.get('namespaces'), info.namespace) if info.namespace else bool(rule.get('clusterScope'))


def _has(values: Sequence[str] | None, wanted: str) -> bool:
    return any(v in {'*', wanted} for v in values or ())


def _path(pattern: str, path: str) -> bool:
    return pattern in {'*', path} or (pattern.endswith('*') and path.startswith(pattern[:-1]))
