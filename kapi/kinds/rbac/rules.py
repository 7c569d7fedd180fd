"""What roles and bindings of both scopes share. Source: pkg/apis/rbac/{v1/defaults.go,validation/validation.go}."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import PlainStrategy
from kapi.kinds.printing import AGE, Cell
from kapi.kinds.rules import forbidden, invalid, label_selector, not_supported, required
from kapi.registry.kind import Col, Obj
from kapi.registry.strategy import Invalid
from kcore.meta import names

GROUP = 'rbac.authorization.k8s.io'


class RoleStrategy(PlainStrategy):
    name_check = staticmethod(names.path_segment)

    def __init__(self, *, cluster: bool = False) -> None:
        self._cluster = cluster

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        for i, rule in enumerate(new.get('rules') or ()):
            yield from self._rule(f'rules[{i}]', rule)
        for i, selector in enumerate((new.get('aggregationRule') or {}).get('clusterRoleSelectors') or ()):
            yield from label_selector(f'aggregationRule.clusterRoleSelectors[{i}]', selector)

    def _rule(self, at: str, rule: Obj) -> Iterator[Invalid]:
        if not rule.get('verbs'):
            yield required(f'{at}.verbs', 'verbs must contain at least one value')
        urls = rule.get('nonResourceURLs')
        if urls:
            if not self._cluster:
                yield invalid(f'{at}.nonResourceURLs', urls, 'namespaced rules cannot apply to non-resource URLs')
            if rule.get('apiGroups') or rule.get('resources') or rule.get('resourceNames'):
                detail = 'rules cannot apply to both regular resources and non-resource URLs'
                yield invalid(f'{at}.nonResourceURLs', urls, detail)
            return
        if not rule.get('apiGroups'):
            yield required(f'{at}.apiGroups', 'resource rules must supply at least one api group')
        if not rule.get('resources'):
            yield required(f'{at}.resources', 'resource rules must supply at least one resource')


class RoleBindingStrategy(PlainStrategy):
    name_check = staticmethod(names.path_segment)

    def __init__(self, *, cluster: bool = False) -> None:
        self._cluster = cluster

    def default(self, obj: Obj) -> None:
        ref = obj.get('roleRef')
        if isinstance(ref, dict) and not ref.get('apiGroup'):
            ref['apiGroup'] = GROUP
        for subject in obj.get('subjects') or ():
            if subject.get('kind') in {'User', 'Group'} and not subject.get('apiGroup'):
                subject['apiGroup'] = GROUP

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        ref = new.get('roleRef') or {}
        if ref.get('apiGroup') != GROUP:
            yield not_supported('roleRef.apiGroup', ref.get('apiGroup') or '', (GROUP,))
        kinds = ('ClusterRole',) if self._cluster else ('ClusterRole', 'Role')
        if ref.get('kind') not in kinds:
            yield not_supported('roleRef.kind', ref.get('kind') or '', kinds)
        if not ref.get('name'):
            yield required('roleRef.name')
        for i, subject in enumerate(new.get('subjects') or ()):
            yield from _subject(f'subjects[{i}]', subject)
        if old is not None and ref != old.get('roleRef'):
            yield invalid('roleRef', ref, 'cannot change roleRef')


def _subject(at: str, subject: Obj) -> Iterator[Invalid]:
    kind, group = subject.get('kind'), subject.get('apiGroup') or ''
    if not subject.get('name'):
        yield required(f'{at}.name')
    if kind == 'ServiceAccount':
        if group:
            yield not_supported(f'{at}.apiGroup', group, ('',))
        if not subject.get('namespace'):
            yield required(f'{at}.namespace')
    elif kind in {'User', 'Group'}:
        if group != GROUP:
            yield not_supported(f'{at}.apiGroup', group, (GROUP,))
        if subject.get('namespace'):
            yield forbidden(f'{at}.namespace', 'may only be set for a ServiceAccount')
    else:
        yield not_supported(f'{at}.kind', kind or '', ('Group', 'ServiceAccount', 'User'))


def _subjects(kind: str) -> Cell:
    def cell(obj: Obj, _now: datetime) -> str:
        found = [s for s in obj.get('subjects') or () if s.get('kind') == kind]
        prefix = kind == 'ServiceAccount'
        return ', '.join(f'{s.get("namespace", "")}/{s.get("name")}' if prefix else str(s.get('name')) for s in found)

    return cell


def _role(obj: Obj, _now: datetime) -> str:
    ref = obj.get('roleRef') or {}
    return f'{ref.get("kind", "")}/{ref.get("name", "")}'


BINDING_COLUMNS = (
    Col('Role', _role, description='The role that is granted.'),
    AGE,
    Col('Users', _subjects('User'), priority=1, description='Users it is granted to.'),
    Col('Groups', _subjects('Group'), priority=1, description='Groups it is granted to.'),
    Col('ServiceAccounts', _subjects('ServiceAccount'), priority=1, description='Service accounts it is granted to.'),
)
