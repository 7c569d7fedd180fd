"""Which writes a webhook or a policy is about: rules, namespace and object selectors. Pure but for namespace labels.

Source: apiserver pkg/admission/plugin/webhook/{predicates,rules}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kapi.admission.chain import Attributes
from kapi.storage.cache import Cache
from kcore.meta.selectors import SelectorError, from_label_selector

Obj = dict[str, Any]
CONFIGURATION_GROUP = 'admissionregistration.k8s.io'
CONFIGURATIONS = frozenset({
    'mutatingwebhookconfigurations', 'validatingwebhookconfigurations', 'validatingadmissionpolicies',
    'validatingadmissionpolicybindings', 'mutatingadmissionpolicies', 'mutatingadmissionpolicybindings',
})  # fmt: skip
VIRTUAL = frozenset({'authorization.k8s.io', 'authentication.k8s.io'})


def exempt(a: Attributes) -> bool:
    """The configurations themselves, so that a bad one can always be taken away; and questions, which store nothing."""
    r = a.kind.resource
    return (r.group == CONFIGURATION_GROUP and r.plural in CONFIGURATIONS) or r.group in VIRTUAL


def rule_matches(rule: Obj, a: Attributes, *, equivalent: bool) -> bool:
    r = a.kind.resource
    if not _has(rule.get('operations'), a.operation) or not _has(rule.get('apiGroups'), r.group):
        return False
    # Another version of the same resource is the same object; nothing else in the tree has equivalents.
    if not equivalent and not _has(rule.get('apiVersions'), r.version):
        return False
    scope = rule.get('scope') or '*'
    namespaced = r.namespaced and not a.is_for('', 'namespaces')
    if scope != '*' and (scope == 'Namespaced') != namespaced:
        return False
    if rule.get('resourceNames') and a.name not in rule['resourceNames']:
        return False
    return any(_resource(pattern, r.plural, a.subresource) for pattern in rule.get('resources') or ())


def _has(values: Iterable[str] | None, wanted: str) -> bool:
    return any(v in {'*', wanted} for v in values or ())


def _resource(pattern: str, plural: str, subresource: str) -> bool:
    resource, slash, sub = pattern.partition('/')
    if resource not in {'*', plural}:
        return False
    return sub in {'*', subresource} if slash else not subresource


class Selection:
    """Matches against what the cache knows of namespaces."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def namespace(self, name: str) -> Obj | None:
        entry = self._cache.peek(f'/registry/namespaces/{name}') if name else None
        return entry.obj if entry is not None else None

    def selected(self, a: Attributes, match: Mapping[str, Any]) -> bool:
        """The namespace and object selectors of a webhook or of a policy's match constraints. Raises SelectorError."""
        return self._namespace(a, match.get('namespaceSelector')) and _object(a, match.get('objectSelector'))

    def _namespace(self, a: Attributes, selector: Obj | None) -> bool:
        if not selector:
            return True
        if a.is_for('', 'namespaces'):
            labels = ((a.obj or a.old or {}).get('metadata') or {}).get('labels')
        elif not a.namespace:
            return True
        else:
            found = self.namespace(a.namespace)
            labels = (found or {}).get('metadata', {}).get('labels')
        return from_label_selector(selector).matches(labels or {})

    def constrained(self, a: Attributes, match: Mapping[str, Any] | None) -> bool:
        """`matchConstraints` of a policy, `matchResources` of a binding; nothing said matches all."""
        if match is None:
            return True
        equivalent = match.get('matchPolicy', 'Equivalent') == 'Equivalent'
        try:
            if not self.selected(a, match):
                return False
        except SelectorError:
            return False
        if any(rule_matches(r, a, equivalent=equivalent) for r in match.get('excludeResourceRules') or ()):
            return False
        rules = match.get('resourceRules')
        return not rules or any(rule_matches(r, a, equivalent=equivalent) for r in rules)


def _object(a: Attributes, selector: Obj | None) -> bool:
    if not selector:
        return True
    wanted = from_label_selector(selector)
    return any(wanted.matches((o.get('metadata') or {}).get('labels') or {}) for o in (a.obj, a.old) if o is not None)


def cel_request(a: Attributes) -> Obj:
    """The `request` variable of expressions, and the body of an AdmissionRequest but for the objects."""
    r, body = a.kind.resource, a.body
    kind = {'group': body.group, 'version': body.version, 'kind': body.kind}
    resource = {'group': r.group, 'version': r.version, 'resource': r.plural}
    return {
        'kind': kind, 'resource': resource, 'subResource': a.subresource, 'requestKind': kind,
        'requestResource': resource, 'requestSubResource': a.subresource, 'name': a.name, 'namespace': a.namespace,
        'operation': a.operation, 'userInfo': a.user.info(), 'dryRun': a.dry_run, 'options': a.options or None,
    }  # fmt: skip
