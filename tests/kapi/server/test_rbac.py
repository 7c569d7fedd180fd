"""RBAC against a slow reference, and rule arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kapi.authn.user import User
from kapi.authz.rbac import Rbac, Rule, uncovered
from kapi.authz.union import Attributes
from kapi.storage.base import Event, Versioned
from kapi.storage.cache import Cache
from kapi.storage.codec import encode
from kapi.storage.memory import MemoryStorage

GROUP = '/registry/rbac.authorization.k8s.io/'


def make(objects: list[tuple[str, dict[str, object]]]) -> Rbac:
    from urllib.parse import urlsplit

    from kcore.env import Env

    env = Env.real(seed=1)
    cache = Cache(MemoryStorage(urlsplit('memory://'), env), env)
    for i, (key, obj) in enumerate(objects):
        meta: dict[str, Any] = {'name': key.rpartition('/')[2]}
        if key.count('/') == 5:
            meta['namespace'] = key.split('/')[4]
        if 'labels' in obj:
            meta['labels'] = obj['labels']
        full = {'apiVersion': 'v1', 'kind': 'X', 'metadata': meta, **obj}
        cache.resource('/'.join(key.split('/')[:4]) + '/').load(Versioned(key, encode(full), i + 2))
    return Rbac(cache)


# --- every verb × resource × scope × subject kind, against a reference that reads the objects anew for every question

ASKED_VERBS = (
    'get', 'list', 'watch', 'create', 'update', 'patch', 'delete', 'deletecollection', 'impersonate', 'bind',
    'escalate', 'approve', 'sign', 'use',
)  # fmt: skip
ASKED = [('', 'pods', ''), ('', 'pods', 'log'), ('apps', 'deployments', ''), ('apps', 'deployments', 'scale'),
         ('', 'nodes', ''), ('example.com', 'things', 'log')]  # fmt: skip
ASKED_PATHS = ('/healthz', '/healthz/etcd', '/metrics', '/')
CALLERS = {
    'user': User('u', ('system:authenticated',)), 'other': User('v', ('dev', 'system:authenticated')),
    'account': User('system:serviceaccount:a:s', ('system:serviceaccounts', 'system:serviceaccounts:a')),
    'nobody': User('system:anonymous', ('system:unauthenticated',)),
}  # fmt: skip
SUBJECTS = [
    {'kind': 'User', 'name': 'u'}, {'kind': 'Group', 'name': 'dev'}, {'kind': 'Group', 'name': 'u'},
    {'kind': 'ServiceAccount', 'name': 's', 'namespace': 'a'}, {'kind': 'ServiceAccount', 'name': 's'},
    {'kind': 'User', 'name': 'system:serviceaccount:a:s'}, {'kind': 'Group', 'name': 'system:serviceaccounts:a'},
    {'kind': 'Group', 'name': 'system:unauthenticated'}, {'kind': 'User', 'name': 'dev'},
]  # fmt: skip
ROLE_NAMES = ('r', 'q', 'gone')


def some(values: Any, most: int = 2) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=most)


resource_rules = st.fixed_dictionaries({
    'verbs': some((*ASKED_VERBS, '*'), 4), 'apiGroups': some(('', 'apps', '*')),
    'resources': some(('pods', 'pods/log', '*/log', 'deployments/*', 'deployments', 'nodes', 'things', '*')),
    'resourceNames': st.lists(st.sampled_from(['x', 'y', '*']), max_size=1),
})  # fmt: skip
path_rules = st.fixed_dictionaries({
    'verbs': some(('get', 'create', '*')), 'nonResourceURLs': some(('/healthz', '/healthz/*', '/met*', '*', '/'))
})  # fmt: skip
cluster_roles = st.fixed_dictionaries(
    {
        'rules': st.lists(st.one_of(resource_rules, path_rules), max_size=2),
        'labels': st.sampled_from([{}, {'to': 'r'}, {'to': 'q'}]),
    },
    optional={'gathers': st.sampled_from([{'to': 'r'}, {'to': 'q'}])},
)
roles = st.fixed_dictionaries({'rules': st.lists(resource_rules, max_size=2)})
bindings = st.tuples(st.sampled_from(['', 'a', 'b']), st.sampled_from(['Role', 'ClusterRole']),
                     st.sampled_from(ROLE_NAMES), some(SUBJECTS))  # fmt: skip


class Reference:
    """What the documentation says, word by word: no index, no memory."""

    def __init__(self, cluster: dict[str, Any], local: dict[tuple[str, str], Any], bound: list[Any]) -> None:
        self.cluster, self.local, self.bound = cluster, local, bound

    def allows(self, a: Attributes) -> bool:
        return any(
            self.covers(rule, a)
            for where, kind, name, subjects in self.bound
            if where in {'', a.namespace} and any(self.is_about(s, where, a.user) for s in subjects)
            for rule in self.rules(where, kind, name)
        )

    def rules(self, where: str, kind: str, name: str) -> list[Any]:
        if kind == 'Role':
            return list(self.local.get((where, name), {}).get('rules', ()))
        return self.gathered(name, set())

    def gathered(self, name: str, through: set[str]) -> list[Any]:
        role = self.cluster.get(name)
        if role is None or name in through:
            return []
        found = list(role['rules'])
        for other, about in self.cluster.items():
            if role.get('gathers') and role['gathers'].items() <= about['labels'].items():
                found += self.gathered(other, {*through, name})
        return found

    @staticmethod
    def is_about(subject: dict[str, str], where: str, user: User) -> bool:
        match subject['kind']:
            case 'User':
                return subject['name'] == user.name
            case 'Group':
                return subject['name'] in user.groups
        return user.name == f'system:serviceaccount:{subject.get("namespace", where)}:{subject["name"]}'

    @staticmethod
    def covers(rule: dict[str, list[str]], a: Attributes) -> bool:
        if not {'*', a.verb} & set(rule['verbs']):
            return False
        if a.path:
            urls = rule.get('nonResourceURLs', ())
            return any(u in {'*', a.path} or (u[-1] == '*' and a.path.startswith(u[:-1])) for u in urls)
        if 'resources' not in rule or not {'*', a.group} & set(rule['apiGroups']):
            return False
        names = {'*', a.full_resource, *([f'*/{a.subresource}'] if a.subresource else [])}
        return bool(names & set(rule['resources'])) and (not rule['resourceNames'] or a.name in rule['resourceNames'])


def matrix() -> Iterator[Attributes]:
    for user in CALLERS.values():
        for verb in ASKED_VERBS:
            for path in ASKED_PATHS:
                yield Attributes(user, verb, path=path)
            for group, resource, sub in ASKED:
                for namespace in ('', 'a', 'b'):
                    for name in ('', 'x'):
                        yield Attributes(user, verb, group, 'v1', resource, sub, namespace, name)


@settings(max_examples=60)
@given(
    cluster=st.dictionaries(st.sampled_from(['r', 'q', 'p']), cluster_roles, min_size=1),
    local=st.dictionaries(st.tuples(st.sampled_from(['a', 'b']), st.sampled_from(['r', 'q'])), roles),
    bound=st.lists(bindings, min_size=1, max_size=3),
)
async def test_every_verb_resource_scope_and_subject_is_decided_as_a_slow_reference_does(
    cluster: dict[str, Any], local: dict[tuple[str, str], Any], bound: list[Any]
) -> None:
    bound = [b for b in bound if b[0] or b[1] == 'ClusterRole']  # a ClusterRoleBinding binds no Role
    objects: list[tuple[str, dict[str, Any]]] = []
    for name, role in cluster.items():
        gathers = {'aggregationRule': {'clusterRoleSelectors': [{'matchLabels': role.get('gathers')}]}}
        body = {'rules': role['rules'], 'labels': role['labels'], **(gathers if 'gathers' in role else {})}
        objects.append((f'{GROUP}clusterroles/{name}', body))
    objects += [(f'{GROUP}roles/{space}/{name}', role) for (space, name), role in local.items()]
    for n, (where, kind, name, subjects) in enumerate(bound):
        place = f'{GROUP}rolebindings/{where}/b{n}' if where else f'{GROUP}clusterrolebindings/b{n}'
        objects.append((place, {'roleRef': {'kind': kind, 'name': name}, 'subjects': subjects}))
    rbac, reference = make(objects), Reference(cluster, local, bound)
    wrong = [a for a in MATRIX if ((await rbac.decide(a)).verdict == 'allow') != reference.allows(a)]
    assert wrong == []


MATRIX = tuple(matrix())


async def test_an_answer_counts_for_its_own_name_and_until_a_role_changes() -> None:
    role = {'rules': [{'verbs': ['get'], 'apiGroups': [''], 'resources': ['pods'], 'resourceNames': ['*', 'x']}]}
    binding = {'roleRef': {'kind': 'ClusterRole', 'name': 'r'}, 'subjects': [{'kind': 'User', 'name': 'u'}]}
    rbac = make([(f'{GROUP}clusterroles/r', role), (f'{GROUP}clusterrolebindings/b', binding)])

    async def allowed(name: str) -> bool:
        question = Attributes(User('u'), 'get', resource='pods', namespace='a', name=name)
        return (await rbac.decide(question)).verdict == 'allow'

    assert [await allowed(name) for name in ('y', 'x', 'y', '*')] == [False, True, False, True]
    meta = {'apiVersion': 'v1', 'kind': 'X', 'metadata': {'name': 'r'}}
    wider = Event(
        f'{GROUP}clusterroles/r', 9, encode({**meta, 'rules': [{**role['rules'][0], 'resourceNames': []}]}), None
    )
    rbac._cache.resource(f'{GROUP}clusterroles/').apply(wider)
    assert await allowed('y')


async def test_a_permission_names_the_binding_the_role_and_the_subject_that_gave_it() -> None:
    def bound(kind: str, name: str, *subjects: dict[str, str]) -> dict[str, Any]:
        return {'roleRef': {'kind': kind, 'name': name}, 'subjects': [*subjects]}

    def rule(resource: str, **more: Any) -> dict[str, Any]:
        return {'rules': [{'verbs': ['get'], 'apiGroups': [''], 'resources': [resource], **more}]}

    account = {'kind': 'ServiceAccount', 'name': 's'}
    rbac = make([
        (f'{GROUP}clusterroles/wide', rule('nodes')),
        (f'{GROUP}roles/a/pods', rule('pods')),
        (f'{GROUP}roles/a/one', rule('secrets', resourceNames=['x'])),
        (f'{GROUP}clusterrolebindings/c', bound('ClusterRole', 'wide', {'kind': 'Group', 'name': 'dev'},
                                                {**account, 'namespace': 'a'})),
        (f'{GROUP}rolebindings/a/r', bound('Role', 'pods', {'kind': 'User', 'name': 'u'}, account)),
        (f'{GROUP}rolebindings/a/x', bound('Role', 'one', {'kind': 'User', 'name': 'u'})),
    ])  # fmt: skip

    async def why(user: User, resource: str, name: str = '') -> str:
        return (await rbac.decide(Attributes(user, 'get', resource=resource, namespace='a', name=name))).reason

    dev, robot = User('u', ('dev',)), User('system:serviceaccount:a:s')
    cluster, local = 'ClusterRoleBinding "c" of ClusterRole "wide" to', 'RoleBinding "r/a" of Role "pods" to'
    assert await why(dev, 'nodes') == f'RBAC: allowed by {cluster} Group "dev"'
    assert await why(robot, 'nodes') == f'RBAC: allowed by {cluster} ServiceAccount "s/a"'
    assert await why(dev, 'pods') == f'RBAC: allowed by {local} User "u"'
    assert await why(robot, 'pods') == f'RBAC: allowed by {local} ServiceAccount "s/a"'
    assert await why(dev, 'secrets', 'x') == 'RBAC: allowed by RoleBinding "x/a" of Role "one" to User "u"'
    assert await why(dev, 'secrets', 'y') == ''


async def test_aggregated_roles_and_service_accounts_count() -> None:
    rbac = make([
        (f'{GROUP}clusterroles/view', {'aggregationRule': {'clusterRoleSelectors': [{'matchLabels': {}}]}}),
        (f'{GROUP}clusterroles/part', {'rules': [{'verbs': ['get'], 'apiGroups': [''], 'resources': ['pods']}]}),
        (f'{GROUP}rolebindings/a/b', {
            'roleRef': {'kind': 'ClusterRole', 'name': 'view'}, 'subjects': [{'kind': 'ServiceAccount', 'name': 's'}],
        }),
    ])  # fmt: skip
    account = User('system:serviceaccount:a:s')
    assert (await rbac.decide(Attributes(account, 'get', resource='pods', namespace='a'))).verdict == 'allow'
    assert (await rbac.decide(Attributes(account, 'get', resource='pods', namespace='b'))).verdict == 'no opinion'


def test_nobody_can_hand_out_more_than_they_hold() -> None:
    held = [Rule(('get', 'list'), ('',), ('pods',))]
    assert not uncovered([Rule(('get',), ('',), ('pods',), ('x',))], held)
    assert uncovered([Rule(('get', 'delete'), ('',), ('pods',))], held) == [Rule(('delete',), ('',), ('pods',))]
    assert uncovered([Rule(('*',), ('*',), ('*',))], held)
    assert not uncovered([Rule(('*',), ('*',), ('*',))], [Rule(('*',), ('*',), ('*',))])


async def test_a_role_may_gather_through_another_that_gathers_and_circles_end() -> None:
    def gathering(label: str, **more: Any) -> dict[str, Any]:
        return {'aggregationRule': {'clusterRoleSelectors': [{'matchLabels': {'to': label}}]}, **more}

    rbac = make([
        (f'{GROUP}clusterroles/top', gathering('top', labels={'to': 'middle'})),
        (f'{GROUP}clusterroles/middle', gathering('middle', labels={'to': 'top'})),
        (f'{GROUP}clusterroles/part', {
            'rules': [{'verbs': ['get'], 'apiGroups': [''], 'resources': ['pods']}], 'labels': {'to': 'middle'},
        }),
        (f'{GROUP}clusterrolebindings/b', {
            'roleRef': {'kind': 'ClusterRole', 'name': 'top'}, 'subjects': [{'kind': 'User', 'name': 'u'}],
        }),
    ])  # fmt: skip
    assert (await rbac.decide(Attributes(User('u'), 'get', resource='pods', namespace='a'))).verdict == 'allow'
    assert (await rbac.decide(Attributes(User('u'), 'list', resource='pods', namespace='a'))).verdict == 'no opinion'
