"""What a securityContext comes to: with privilege, without, and where nothing could keep its promise."""

from __future__ import annotations

import os

import pytest

from knode.errors import ContainerConfigError, RunError
from knode.pods import security
from knode.pods.security import DEFAULT, NAMES
from knode.runtime.driver import Capabilities

ROOT, USER = Capabilities(change_user=True, isolates_fs=True), Capabilities()


def numbers(*names):
    return tuple(sorted(NAMES.index(n) for n in names))


@pytest.mark.parametrize(
    ('wishes', 'kept'),
    [
        ({}, numbers(*DEFAULT)),
        ({'capabilities': {'drop': ['ALL']}}, ()),
        ({'capabilities': {'drop': ['ALL'], 'add': ['NET_BIND_SERVICE', 'cap_chown']}},
         numbers('NET_BIND_SERVICE', 'CHOWN')),
        ({'capabilities': {'add': ['ALL'], 'drop': ['SYS_ADMIN']}}, numbers(*(n for n in NAMES if n != 'SYS_ADMIN'))),
        ({'privileged': True}, None),
    ],
)  # fmt: skip
def test_a_privileged_agent_bounds_capabilities_as_engines_do(wishes, kept):
    assert security.bounding(wishes, ROOT) == kept


@pytest.mark.parametrize(
    ('wishes', 'words'),
    [
        ({'privileged': True}, 'no privilege to give'),
        ({'capabilities': {'add': ['NET_ADMIN']}}, 'cannot be added: this node agent is not privileged'),
        ({'capabilities': {'drop': ['NONE']}}, 'unknown capability "CAP_NONE"'),
    ],
)
def test_an_agent_without_privilege_refuses_to_pretend(wishes, words):
    with pytest.raises(RunError, match=words):
        security.bounding(wishes, USER)


def test_an_agent_without_privilege_has_nothing_to_drop():
    assert security.bounding({'capabilities': {'drop': ['ALL']}}, USER) is None


@pytest.mark.parametrize(
    ('wishes', 'found'),
    [
        ({}, (None, None, ())),
        ({'runAsUser': 1000}, (1000, 0, ())),
        ({'runAsUser': 1000, 'runAsGroup': 2000, 'fsGroup': 3000, 'supplementalGroups': [4000]},
         (1000, 2000, (4000, 3000))),
        ({'fsGroup': 3000}, (os.geteuid(), 0, (3000,))),
    ],
)  # fmt: skip
def test_users_and_groups_are_as_asked_where_the_agent_can_change_them(make_pod, wishes, found):
    pod = make_pod()
    assert security.user(pod, pod['spec']['containers'][0], wishes, ROOT) == found


@pytest.mark.parametrize('wishes', [{'runAsUser': os.geteuid() + 1}, {'runAsGroup': os.getegid() + 1}])
def test_another_user_is_refused_without_privilege(make_pod, wishes):
    pod = make_pod()
    with pytest.raises(RunError, match=r'^runAs\w+ \d+: this node agent runs as \d+ and is not privileged'):
        security.user(pod, pod['spec']['containers'][0], wishes, USER)
    own = {'runAsUser': os.geteuid(), 'runAsGroup': os.getegid()}
    assert security.user(pod, pod['spec']['containers'][0], own, USER) == (None, None, ())


def test_root_is_refused_where_it_must_not_be(make_pod):
    pod = make_pod()
    with pytest.raises(ContainerConfigError) as refused:
        security.user(pod, pod['spec']['containers'][0], {'runAsNonRoot': True, 'runAsUser': 0}, ROOT)
    assert str(refused.value) == ('container\'s runAsUser breaks non-root policy (pod: "p_default(u1)", container: c)')


@pytest.mark.parametrize(
    ('wishes', 'words'),
    [
        ({'seccompProfile': {'type': 'Localhost', 'localhostProfile': 'x'}}, 'no seccomp profiles'),
        ({'appArmorProfile': {'type': 'Localhost', 'localhostProfile': 'x'}}, 'no AppArmor profiles'),
        ({'seLinuxOptions': {'level': 's0'}}, 'no SELinux labels'),
        ({'procMount': 'Unmasked'}, 'procMount Unmasked'),
        ({'readOnlyRootFilesystem': True}, 'cannot give containers a mount namespace'),
    ],
)
def test_what_would_be_a_hole_if_it_were_forgotten_is_refused(wishes, words):
    with pytest.raises(RunError, match=words):
        security.check(wishes, USER)


def test_a_default_profile_is_announced_as_not_enforced():
    wishes = {'seccompProfile': {'type': 'RuntimeDefault'}, 'appArmorProfile': {'type': 'Unconfined'}}
    security.check(wishes, USER)
    (text,) = security.announcements(wishes, ROOT)
    assert text.startswith('seccompProfile RuntimeDefault is not enforced')


def test_groups_that_cannot_be_given_are_announced():
    wishes = {'fsGroup': 3000, 'supplementalGroups': [4000, os.getegid()]}
    (text,) = security.announcements(wishes, USER)
    assert text.startswith('groups 3000, 4000 are not given to containers')
    assert security.announcements(wishes, ROOT) == []


def test_a_status_says_who_a_container_is():
    assert security.identity(1000, 2000, (3000, 2000)) == {
        'uid': 1000, 'gid': 2000, 'supplementalGroups': [2000, 3000],
    }  # fmt: skip
    own = security.identity(None, None, ())
    assert (own['uid'], own['gid'], own['supplementalGroups'][0]) == (os.geteuid(), os.getegid(), os.getegid())
