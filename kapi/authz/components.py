"""What the cluster's own components may do, as data: an allow-list that needs no objects in the store.

Node agents have an authorizer of their own, `node.py`. Source of the
lists: upstream's bootstrap policy (plugin/pkg/auth/authorizer/rbac/bootstrappolicy), cut to what ours need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kapi.authz.masters import ALLOW
from kapi.authz.union import NO_OPINION, Attributes, Decision

READ = frozenset({'get', 'list', 'watch'})
WRITE = frozenset({'create', 'update', 'patch', 'delete'})
ALL = frozenset({'*'})


@dataclass(frozen=True, slots=True)
class Allow:
    verbs: frozenset[str]
    group: str
    resources: frozenset[str]
    """With subresource, `pods/status`; `*` is any."""


def _allow(verbs: frozenset[str], group: str, *resources: str) -> Allow:
    return Allow(verbs, group, frozenset(resources))


USERS: Mapping[str, tuple[Allow, ...]] = {
    'system:kube-controller-manager': (_allow(ALL, '*', '*'),),
    'system:kube-scheduler': (
        _allow(READ, '*', '*'),
        _allow(frozenset({'create'}), '', 'pods/binding', 'bindings'),
        _allow(frozenset({'patch', 'update'}), '', 'pods/status'),
        _allow(frozenset({'delete'}), '', 'pods'),
        _allow(frozenset({'patch', 'update'}), '', 'persistentvolumes', 'persistentvolumeclaims'),
        _allow(WRITE, '', 'events'),
        _allow(WRITE, 'events.k8s.io', 'events'),
        _allow(WRITE, 'coordination.k8s.io', 'leases'),
    ),
}
GROUPS: Mapping[str, tuple[Allow, ...]] = {
    'system:authenticated': (
        _allow(frozenset({'create'}), 'authorization.k8s.io', 'selfsubjectaccessreviews', 'selfsubjectrulesreviews'),
        _allow(frozenset({'create'}), 'authentication.k8s.io', 'selfsubjectreviews'),
    ),
}  # fmt: skip
PUBLIC_PATHS = ('/version', '/healthz', '/livez', '/readyz')
"""Open to everybody, also without credentials."""
DISCOVERY_PATHS = ('/api', '/apis', '/openapi')
"""Open to everybody who is authenticated."""


def matches(rule: Allow, a: Attributes) -> bool:
    return (
        (a.verb in rule.verbs or '*' in rule.verbs)
        and rule.group in {'*', a.group}
        and ('*' in rule.resources or a.full_resource in rule.resources)
    )


def _below(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(root + '/') for root in roots)


class Components:
    """The allow-list."""

    name = 'components'

    async def decide(self, a: Attributes) -> Decision:
        if a.path:
            known = 'system:authenticated' in a.user.groups
            open_to_all = a.verb in {'get', 'head'} and _below(a.path, PUBLIC_PATHS)
            readable = known and a.verb in {'get', 'head'} and _below(a.path, DISCOVERY_PATHS)
            manager = a.user.name == 'system:kube-controller-manager'
            return ALLOW if open_to_all or readable or manager else NO_OPINION
        rules = USERS.get(a.user.name, ())
        for group in a.user.groups:
            rules = (*rules, *GROUPS.get(group, ()))
        return ALLOW if any(matches(r, a) for r in rules) else NO_OPINION
