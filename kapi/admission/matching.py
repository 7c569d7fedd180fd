"""Which writes a webhook or a policy is about: rules, namespace and object selectors. Pure but for namespace labels.

Source: apiserver pkg/admission/plugin/webhook/{predicates,rules}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kapi.admission.chain import Attributes
from kapi.registry.kind import Kind
from kapi.storage.cache import Cache
from kcore.meta.gvk import Resource
from kcore.meta.selectors import SelectorError, from_label_selector

Obj = dict[str, Any]
Equivalents = Callable[[Kind], Sequence[Kind]]
"""All kinds that show the same objects as one."""
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


def _rule_matches(rule: Obj, a: Attributes, r: Resource) -> bool:
    if not _has(rule.get('operations'), a.operation):
        return False
    if not _has(rule.get('apiGroups'), r.group) or not _has(rule.get('apiVersions'), r.version):
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
    """Matches against what the cache knows of namespaces, and what is known of versions."""

    def __init__(self, cache: Cache, equivalents: Equivalents) -> None:
        self._cache = cache
        self._equivalents = equivalents

    def chosen(self, rules: Iterable[Obj] | None, a: Attributes, policy: str | None) -> Kind | None:
        """As which kind the rules want the write: as it came if one names that, else as the first that one names."""
        rules = rules or ()
        if any(_rule_matches(rule, a, a.asked.resource) for rule in rules):
            return a.asked
        if policy == 'Exact':
            return None
        others = self._equivalents(a.asked)
        return next((kind for rule in rules for kind in others if _rule_matches(rule, a, kind.resource)), None)

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

    def constrained(self, a: Attributes, match: Mapping[str, Any] | None) -> Kind | None:
        """As which kind `matchConstraints` of a policy or `matchResources` of a binding want it; None: not at all.

        Nothing said matches all.
        """
        if match is None:
            return a.asked
        policy = match.get('matchPolicy')
        try:
            if not self.selected(a, match):
                return None
        except SelectorError:
            return None
        if self.chosen(match.get('excludeResourceRules'), a, policy):
            return None
        rules = match.get('resourceRules')
        return self.chosen(rules, a, policy) if rules else a.asked


def _object(a: Attributes, selector: Obj | None) -> bool:
    if not selector:
        return True
    wanted = from_label_selector(selector)
    return any(wanted.matches((o.get('metadata') or {}).get('labels') or {}) for o in (a.obj, a.old) if o is not None)


def cel_request(a: Attributes) -> Obj:
    """The `request` variable of expressions, and the body of an AdmissionRequest but for the objects."""
    r, asked = a.kind.resource, a.asked.resource
    return {
        'kind': _kind(a.body), 'resource': _resource_of(r), 'subResource': a.subresource,
        'requestKind': _kind(a.shown or asked), 'requestResource': _resource_of(asked),
        'requestSubResource': a.subresource, 'name': a.name, 'namespace': a.namespace, 'operation': a.operation,
        'userInfo': a.user.info(), 'dryRun': a.dry_run, 'options': a.options or None,
    }  # fmt: skip


def _kind(r: Resource) -> Obj:
    return {'group': r.group, 'version': r.version, 'kind': r.kind}


def _resource_of(r: Resource) -> Obj:
    return {'group': r.group, 'version': r.version, 'resource': r.plural}
