"""RBAC: roles say what, bindings say who; every binding that names the caller adds its role's rules.

The objects are read from the watch cache and compiled into an index by subject, which is built again only when one of
the four resources has changed. An aggregated ClusterRole is the union of the roles that its selectors match, computed
here, so it is never behind. Source: pkg/registry/rbac/validation/rule.go, plugin/pkg/auth/authorizer/rbac/rbac.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kapi.authn.user import User
from kapi.authz.union import NO_OPINION, Attributes, Decision
from kapi.storage.cache import Cache
from kcore.meta.selectors import from_label_selector

Obj = dict[str, Any]

_GROUP = '/registry/rbac.authorization.k8s.io/'
ROLES, CLUSTER_ROLES = f'{_GROUP}roles/', f'{_GROUP}clusterroles/'
BINDINGS, CLUSTER_BINDINGS = f'{_GROUP}rolebindings/', f'{_GROUP}clusterrolebindings/'
_ALL = (ROLES, CLUSTER_ROLES, BINDINGS, CLUSTER_BINDINGS)
EVERYWHERE = ''
VERDICTS_MAX = 10_000
"""Answers remembered until a role or binding changes; beyond it all are found anew."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One PolicyRule."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def covers(self, a: Attributes) -> bool:
        """Whether the rule is about what is asked, whatever the object's name."""
        if not _has(self.verbs, a.verb):
            return False
        if a.path:
            return any(p in {'*', a.path} or (p.endswith('*') and a.path.startswith(p[:-1])) for p in self.paths)
        return _has(self.groups, a.group) and _resource_matches(self.resources, a.full_resource, a.subresource)


def _has(allowed: tuple[str, ...], wanted: str) -> bool:
    return wanted in allowed or '*' in allowed


def _resource_matches(allowed: tuple[str, ...], full: str, subresource: str) -> bool:
    return full in allowed or '*' in allowed or bool(subresource and f'*/{subresource}' in allowed)


def rule_of(obj: Obj) -> Rule:
    def texts(field: str) -> tuple[str, ...]:
        return tuple(obj.get(field) or ())

    return Rule(
        texts('verbs'), texts('apiGroups'), texts('resources'), texts('resourceNames'), texts('nonResourceURLs')
    )


def subject_keys(user: User) -> tuple[str, ...]:
    return (f'User:{user.name}', *(f'Group:{g}' for g in user.groups))


def _subject_key(subject: Obj, namespace: str) -> str:
    if subject.get('kind') == 'ServiceAccount':
        return f'User:system:serviceaccount:{subject.get("namespace") or namespace}:{subject.get("name")}'
    return f'{subject.get("kind")}:{subject.get("name")}'


@dataclass(frozen=True, slots=True)
class Grant:
    """What a binding gives to one of its subjects."""

    rules: Sequence[Rule]
    binding: Obj
    subject: Obj

    @property
    def reason(self) -> str:
        """For reviews and the audit log. Source: `describeSubject` and the describers of rule.go."""
        namespace = self.binding['metadata'].get('namespace')
        kind, at = ('RoleBinding', f'/{namespace}') if namespace else ('ClusterRoleBinding', '')
        ref, who = self.binding['roleRef'], self.subject
        name = who.get('name')
        if who.get('kind') == 'ServiceAccount':
            name = f'{name}/{who.get("namespace") or namespace}'
        bound = f'{kind} "{self.binding["metadata"]["name"]}{at}" of {ref.get("kind")} "{ref.get("name")}"'
        return f'RBAC: allowed by {bound} to {who.get("kind")} "{name}"'


Verdict = Decision | Mapping[str, Decision]
"""For every object, or by the names of those that may be touched."""


class Rbac:
    name = 'rbac'

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._sources = tuple(cache.resource(prefix) for prefix in _ALL)
        self._seen: tuple[int, ...] = ()
        self._grants: dict[str, dict[str, list[Grant]]] = {}
        """subject → namespace (or EVERYWHERE) → what bindings give it."""
        self._verdicts: dict[tuple[str | tuple[str, ...], ...], Verdict] = {}

    async def decide(self, a: Attributes) -> Decision:
        self._index()  # forgets the verdicts when it is built anew
        key = (a.user.name, a.user.groups, a.namespace, a.verb, a.group, a.resource, a.subresource, a.path)
        verdict = self._verdicts.get(key)
        if verdict is None:
            if len(self._verdicts) >= VERDICTS_MAX:
                self._verdicts.clear()
            verdict = self._verdicts[key] = self._judge(a)
        return verdict if isinstance(verdict, Decision) else verdict.get(a.name, NO_OPINION)

    def _judge(self, a: Attributes) -> Verdict:
        names: dict[str, Decision] = {}
        for grant in self._grants_for(a.user, a.namespace):
            for rule in grant.rules:
                if not rule.covers(a):
                    continue
                allowed = Decision('allow', grant.reason)
                if a.path or not rule.names:
                    return allowed
                names = dict.fromkeys(rule.names, allowed) | names
        return names

    def rules_for(self, user: User, namespace: str) -> Iterator[Rule]:
        """What the user may do in `namespace`, cluster-wide grants first; none means cluster scope only."""
        for grant in self._grants_for(user, namespace):
            yield from grant.rules

    def _grants_for(self, user: User, namespace: str) -> Iterator[Grant]:
        grants = self._index()
        for where in (EVERYWHERE, namespace) if namespace else (EVERYWHERE,):
            for key in subject_keys(user):
                found = grants.get(key)
                if found is not None:
                    yield from found.get(where, ())

    def _index(self) -> dict[str, dict[str, list[Grant]]]:
        seen = tuple([source.changes for source in self._sources])
        if seen != self._seen:
            self._grants = {}
            self._verdicts.clear()
            for prefix in (CLUSTER_BINDINGS, BINDINGS):
                for entry in self._cache.resource(prefix).select(prefix):
                    self._grant(entry.obj)
            self._seen = seen
        return self._grants

    def _grant(self, binding: Obj) -> None:
        namespace = binding['metadata'].get('namespace') or EVERYWHERE
        rules = self.role_rules(binding.get('roleRef') or {}, namespace) or []
        for subject in binding.get('subjects') or ():
            key = _subject_key(subject, namespace)
            self._grants.setdefault(key, {}).setdefault(namespace, []).append(Grant(rules, binding, subject))

    def role_rules(self, ref: Obj, namespace: str) -> list[Rule] | None:
        """The rules of a roleRef; None when the role does not exist."""
        cluster = ref.get('kind') == 'ClusterRole'
        key = f'{CLUSTER_ROLES}{ref.get("name")}' if cluster else f'{ROLES}{namespace}/{ref.get("name")}'
        entry = self._cache.peek(key)
        return [rule_of(r) for r in self._expanded(entry.obj, set())] if entry is not None else None

    def _expanded(self, role: Obj, seen: set[str]) -> Iterator[Obj]:
        """Its rules and those of the roles that it gathers, of which some may gather others. `seen` are names."""
        yield from role.get('rules') or ()
        aggregation = role.get('aggregationRule')
        if not aggregation:
            return
        seen.add(role['metadata']['name'])
        selectors = [from_label_selector(s) for s in aggregation.get('clusterRoleSelectors') or ()]
        for entry in self._cache.resource(CLUSTER_ROLES).select(CLUSTER_ROLES):
            meta = entry.obj['metadata']
            if meta['name'] not in seen and any(s.matches(meta.get('labels') or {}) for s in selectors):
                yield from self._expanded(entry.obj, seen)


def uncovered(wanted: Sequence[Rule], held: Sequence[Rule]) -> list[Rule]:
    """The parts of `wanted` that no rule of `held` grants; for escalation prevention."""
    return [atom for rule in wanted for atom in _atoms(rule) if not any(_covers(h, atom) for h in held)]


def _atoms(rule: Rule) -> Iterator[Rule]:
    """A rule as rules of one verb on one thing each."""
    for verb in rule.verbs:
        for path in rule.paths:
            yield Rule((verb,), paths=(path,))
        for group in rule.groups:
            for resource in rule.resources:
                for name in rule.names or ('',):
                    yield Rule((verb,), (group,), (resource,), (name,) if name else ())


def _covers(held: Rule, atom: Rule) -> bool:
    if not _has(held.verbs, atom.verbs[0]):
        return False
    if atom.paths:
        path = atom.paths[0]
        return any(p in {'*', path} or (p.endswith('*') and path.startswith(p[:-1])) for p in held.paths)
    if not held.resources or not _has(held.groups, atom.groups[0]):
        return False
    resource = atom.resources[0]
    _, _, subresource = resource.partition('/')
    if not _resource_matches(held.resources, resource, subresource):
        return False
    return not held.names or bool(atom.names and atom.names[0] in held.names)
