"""RBAC against a slow reference, and rule arithmetic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kapi.authn.user import User
from kapi.authz.rbac import Rbac, Rule, uncovered
from kapi.authz.union import Attributes
from kapi.storage.base import Event, Versioned
from kapi.storage.cache import Cache
from kapi.storage.codec import encode
from kapi.storage.memory import MemoryStorage

GROUP = '/registry/rbac.authorization.k8s.io/'
VERBS, GROUPS, THINGS, SPACES = ('get', 'list', '*'), ('', 'apps', '*'), ('pods', 'pods/log', '*/log', '*'), ('a', 'b')
users = st.sampled_from(['u', 'v'])


def rule_objects() -> st.SearchStrategy[dict[str, list[str]]]:
    def some(values: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
        return st.lists(st.sampled_from(values), min_size=1, max_size=2)

    names = st.lists(st.sampled_from(['x', 'y']), max_size=1)
    return st.fixed_dictionaries(
        {'verbs': some(VERBS), 'apiGroups': some(GROUPS), 'resources': some(THINGS), 'resourceNames': names}
    )


def make(objects: list[tuple[str, dict[str, object]]]) -> Rbac:
    from urllib.parse import urlsplit

    from kcore.env import Env

    env = Env.real(seed=1)
    cache = Cache(MemoryStorage(urlsplit('memory://'), env), env)
    for i, (key, obj) in enumerate(objects):
        meta = {'name': key.rpartition('/')[2]}
        if key.count('/') == 5:
            meta['namespace'] = key.split('/')[4]
        full = {'apiVersion': 'v1', 'kind': 'X', 'metadata': meta, **obj}
        cache.resource('/'.join(key.split('/')[:4]) + '/').load(Versioned(key, encode(full), i + 2))
    return Rbac(cache)


def allowed_slowly(rule: dict[str, list[str]], a: Attributes) -> bool:
    full = f'{a.resource}/{a.subresource}' if a.subresource else a.resource
    resource = any(r in {'*', full} or (a.subresource and r == f'*/{a.subresource}') for r in rule['resources'])
    named = not rule['resourceNames'] or a.name in rule['resourceNames']
    return bool(
        any(v in {'*', a.verb} for v in rule['verbs']) and any(g in {'*', a.group} for g in rule['apiGroups'])
        and resource and named
    )  # fmt: skip


@given(
    rules=st.lists(rule_objects(), min_size=1, max_size=3),
    subject=users, namespace=st.sampled_from(['', *SPACES]),
    user=users, verb=st.sampled_from(['get', 'list']), group=st.sampled_from(['', 'apps']),
    resource=st.sampled_from(['pods', 'nodes']), sub=st.sampled_from(['', 'log']), where=st.sampled_from(['', *SPACES]),
    name=st.sampled_from(['', 'x']),
)  # fmt: skip
async def test_decisions_agree_with_a_slow_reference(
    *, rules: list[dict[str, list[str]]], subject: str, namespace: str, user: str, verb: str, group: str, resource: str,
    sub: str, where: str, name: str,
) -> None:  # fmt: skip
    ref = {'kind': 'ClusterRole', 'name': 'r'}
    binding = {'roleRef': ref, 'subjects': [{'kind': 'User', 'name': subject}]}
    place = f'{GROUP}rolebindings/{namespace}/b' if namespace else f'{GROUP}clusterrolebindings/b'
    rbac = make([(f'{GROUP}clusterroles/r', {'rules': rules}), (place, binding)])
    a = Attributes(User(user), verb, group, 'v1', resource, sub, where, name)
    in_scope = namespace in {'', where}
    expected = user == subject and in_scope and any(allowed_slowly(r, a) for r in rules)
    assert ((await rbac.decide(a)).verdict == 'allow') == expected


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
