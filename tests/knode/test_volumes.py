"""Volumes made of API objects: replaced as one, kept up to date, readable by whom they are for."""

from __future__ import annotations

import errno
import os
import shutil
from types import SimpleNamespace

import pytest

from kcore.tasks import start_detached, stop
from knode.errors import ContainerConfigError, VolumeError
from knode.pods.environment import Facts
from knode.pods.launch import Paths
from knode.runtime.driver import Capabilities, ContainerSpec
from knode.volumes import payload
from knode.volumes.manager import Volumes, sub_path
from knode.volumes.memory import LINK, Memory, discard
from knode.volumes.payload import File


def content(directory):
    return {p.name: p.read_text() for p in directory.iterdir() if not p.name.startswith('..')}


def test_all_files_change_at_once_and_nothing_is_left_behind(tmp_path):
    payload.write(tmp_path, {'a': File(b'1', 0o644), 'd/b': File(b'1', 0o400)}, 's1')
    (tmp_path / '..torn').mkdir()
    assert (tmp_path / 'd' / 'b').stat().st_mode & 0o777 == 0o400
    assert payload.write(tmp_path, {'a': File(b'2', 0o644), 'c': File(b'2', 0o644)}, 's2')
    assert content(tmp_path) == {'a': '2', 'c': '2'}
    assert sorted(p.name for p in tmp_path.iterdir()) == ['..data', '..s2', 'a', 'c']
    assert os.readlink(tmp_path / 'a') == '..data/a'


def test_what_has_not_changed_is_not_written(tmp_path):
    files = {'a': File(b'1', 0o600)}
    group = os.getegid()
    assert payload.write(tmp_path, files, 's1', gid=group)
    assert not payload.write(tmp_path, files, 's2', gid=group)
    assert (tmp_path / 'a').stat().st_mode & 0o777 == 0o640


def test_a_write_that_fails_leaves_the_old_files_and_takes_no_room(tmp_path, monkeypatch):
    payload.write(tmp_path, {'a': File(b'1', 0o644)}, 's1')

    def full(fd, data):
        raise OSError(errno.ENOSPC, 'no space')

    monkeypatch.setattr('knode.runtime.shim.host.write_all', full)
    with pytest.raises(OSError, match='no space'):
        payload.write(tmp_path, {'a': File(b'2', 0o644)}, 's2')
    assert content(tmp_path) == {'a': '1'}
    assert sorted(p.name for p in tmp_path.iterdir()) == ['..data', '..s1', 'a']


@pytest.mark.parametrize('path', ['', '/a', '../a', 'a/../b', '..a'])
def test_no_file_leads_out_of_its_volume(tmp_path, path):
    with pytest.raises(VolumeError):
        payload.write(tmp_path, {path: File(b'', 0o644)}, 's1')


class Objects:
    def __init__(self, **maps):
        self.maps = maps
        self.version = '1'
        self.followed, self.tell = frozenset(), None
        self.immutable = False
        self.watched = set()

    async def read(self, resource, name, namespace):
        data = self.maps.get(name)
        meta = {'name': name, 'resourceVersion': self.version}
        return None if data is None else {'metadata': meta, 'data': data, 'immutable': self.immutable}

    def follow(self, refs, tell):
        self.followed, self.tell = refs, tell

    def tells(self, refs):
        return self.watched >= {name for _, _, name in refs}

    async def token(self, pod, audience, expires_s):
        return f'token for {audience}'


@pytest.fixture
def volumes(env, tmp_path):
    objects = Objects(one={'k': '1'}, two={'k': '1'})
    host = SimpleNamespace(
        env=env, objects=objects, sync_frequency_s=60.0,
        facts=lambda address: Facts(address, '127.0.0.1', 'n1'), memory=Memory(tmp_path / 'memory'),
        cluster_dns='', name_server='',
    )  # fmt: skip
    made = Volumes(host, Paths(tmp_path / 'pods' / 'u1'), lambda: '127.64.0.2', Capabilities)
    made.objects = objects
    return made


async def test_a_missing_object_keeps_the_old_files_and_holds_up_no_other_volume(volumes, make_pod):
    names = ('one', 'two')
    pod = make_pod(volumes=[{'name': n, 'configMap': {'name': n}} for n in names])
    await volumes.set_up(pod)
    volumes.objects.maps = {'two': {'k': '2'}}
    await volumes.refresh(pod)
    assert [content(volumes.path(n)) for n in names] == [{'k': '1'}, {'k': '2'}]


async def test_a_changed_object_reaches_its_files_without_waiting_for_the_next_round(volumes, make_pod, eventually):
    pod = make_pod(volumes=[{'name': 'one', 'configMap': {'name': 'one'}}])
    await volumes.set_up(pod)
    (ref,) = volumes.objects.followed
    volumes.objects.tell(ref, '1')
    assert not volumes.stale.is_set()  # that is the one it has read
    fresh = start_detached('fresh', volumes.keep_fresh(lambda: pod))
    volumes.objects.maps, volumes.objects.version = {'one': {'k': '2'}}, '2'
    volumes.objects.tell(ref, '2')
    await eventually(lambda: content(volumes.path('one')) == {'k': '2'})
    await stop(fresh)


async def test_files_are_looked_at_less_often_while_changes_are_told_but_for_a_token_that_ages(volumes, make_pod):
    pod = make_pod(volumes=[{'name': n, 'configMap': {'name': n}} for n in ('one', 'two')])
    await volumes.set_up(pod)
    assert volumes._patience_s() == 60
    volumes.objects.watched = {'one'}
    assert volumes._patience_s() == 60
    volumes.objects.watched = {'one', 'two'}
    assert volumes._patience_s() == 600
    for seconds, patience in ((3600, 600), (600, 480), (60, 60)):
        source = {'serviceAccountToken': {'path': 't', 'expirationSeconds': seconds}}
        await volumes.files(pod, {'projected': {'sources': [source]}})
        assert volumes._patience_s() == pytest.approx(patience, abs=1)


async def test_what_cannot_change_is_not_followed_nor_what_nobody_reads_any_more(volumes, make_pod):
    optional = {'name': 'absent', 'secret': {'secretName': 'absent', 'optional': True}}
    pod = make_pod(volumes=[{'name': 'one', 'configMap': {'name': 'one'}}, optional])
    await volumes.set_up(pod)
    assert {name for _, _, name in volumes.objects.followed} == {'one', 'absent'}
    volumes.objects.immutable = True
    await volumes.refresh(pod)
    assert {name for _, _, name in volumes.objects.followed} == {'absent'}
    volumes.release()
    assert not volumes.objects.followed


async def test_what_an_earlier_agent_made_is_looked_at_at_once(volumes, make_pod, eventually):
    pod = make_pod(volumes=[{'name': 'one', 'configMap': {'name': 'one'}}])
    volumes.resume()
    fresh = start_detached('fresh', volumes.keep_fresh(lambda: pod))
    await eventually(lambda: volumes.objects.followed)
    await stop(fresh)
    assert content(volumes.path('one')) == {'k': '1'}


async def test_a_volume_that_cannot_be_made_is_named(volumes, make_pod):
    field = {'path': 'f', 'fieldRef': {'fieldPath': 'spec.none'}}
    pod = make_pod(volumes=[{'name': 'v', 'downwardAPI': {'items': [field]}}])
    with pytest.raises(
        VolumeError, match=r'MountVolume\.SetUp failed for volume "v" : unsupported fieldPath: spec\.none'
    ):
        await volumes.set_up(pod)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root gives files away')
@pytest.mark.parametrize(
    ('security', 'mode', 'owner', 'group'),
    [
        ({}, 0o644, 0, 0),
        ({'runAsUser': 1000}, 0o600, 1000, 0),
        ({'runAsUser': 1000, 'fsGroup': 2000}, 0o640, 1000, 2000),
        ({'fsGroup': 2000}, 0o640, 0, 2000),
    ],
)
async def test_a_token_belongs_to_who_uses_it(volumes, make_pod, *, security, mode, owner, group):
    source = {'serviceAccountToken': {'path': 't', 'audience': 'vault'}}
    pod = make_pod(securityContext=security, volumes=[{'name': 'v', 'projected': {'sources': [source]}}])
    await volumes.set_up(pod)
    file = (volumes.path('v') / 't').stat()
    assert (file.st_mode & 0o777, file.st_uid, file.st_gid) == (mode, owner, group)


@pytest.mark.parametrize(
    ('mount', 'found'),
    [({}, ''), ({'subPath': 'a/b'}, 'a/b'), ({'subPath': 'a..b'}, 'a..b'), ({'subPathExpr': '$(X)/$$(X)'}, 'x/$(X)')],
)
def test_a_sub_path_is_expanded(mount, found):
    assert sub_path(mount, {'X': 'x'}) == found


@pytest.mark.parametrize(
    ('mount', 'words'),
    [
        ({'subPathExpr': '$(Y)/$(Z)'}, 'missing value for Y, Z'),
        ({'subPathExpr': '/$(X)'}, 'error SubPath `/x` must not be an absolute path'),
        ({'subPath': 'a/../b'}, "unable to provision SubPath `a/../b`: must not contain '..'"),
    ],
)
def test_a_sub_path_that_cannot_be_is_refused_in_upstreams_words(mount, words):
    with pytest.raises(ContainerConfigError) as refused:
        sub_path(mount, {'X': 'x', 'Z': ''})
    assert str(refused.value) == words


def secret_pod(make_pod):
    projected = {'sources': [{'configMap': {'name': 'one'}}]}
    return make_pod(volumes=[{'name': 'map', 'configMap': {'name': 'one'}}, {'name': 'v', 'projected': projected}])


async def test_what_is_secret_never_reaches_the_disk_and_goes_with_its_pod(volumes, make_pod, tmp_path):
    pod = secret_pod(make_pod)
    await volumes.set_up(pod)
    memory = tmp_path / 'memory'
    assert [p.name for p in (memory / 'u1').iterdir()] == ['v']
    assert (memory.stat().st_mode | (memory / 'u1').stat().st_mode) & 0o077 == 0
    assert volumes.path('v').is_symlink()
    assert content(volumes.path('v')) == content(volumes.path('map'))
    await volumes.remove()
    assert not memory.exists()


async def test_a_reboot_empties_the_memory_and_the_volumes_are_made_again(volumes, make_pod, tmp_path):
    pod = secret_pod(make_pod)
    await volumes.set_up(pod)
    shutil.rmtree(tmp_path / 'memory')
    await volumes.set_up(pod)
    assert content(volumes.path('v')) == content(tmp_path / 'memory' / 'u1' / 'v') != {}


async def test_a_volume_that_containers_see_on_disk_stays_there(volumes, make_pod, tmp_path):
    """An agent from before, or one that was told to keep nothing in memory, has made it."""
    volumes._host.memory, memory = Memory(), volumes._host.memory
    pod = secret_pod(make_pod)
    await volumes.set_up(pod)
    volumes._host.memory = memory
    volumes.objects.maps['one'] = {'k': '2'}
    await volumes.refresh(pod)
    assert not volumes.path('v').is_symlink()
    assert content(volumes.path('v')) == content(volumes.path('map'))


async def test_a_directory_that_somebody_else_can_enter_is_not_used(volumes, make_pod, tmp_path):
    (tmp_path / 'memory').mkdir(mode=0o755)
    pod = secret_pod(make_pod)
    await volumes.set_up(pod)
    assert not list((tmp_path / 'memory').iterdir())
    assert content(volumes.path('v')) == content(volumes.path('map'))


def test_what_an_agent_has_left_in_memory_is_found_by_the_next_one_and_by_who_ends_the_node(tmp_path, monkeypatch):
    monkeypatch.setattr('knode.volumes.memory._file_system', lambda path: 'tmpfs')
    (tmp_path / 'shm').mkdir()
    (tmp_path / 'n1').mkdir()

    def opened():
        return Memory.open(str(tmp_path / 'shm'), tmp_path / 'n1')

    for uid in ('gone', 'known'):
        (opened().directory(uid) / 'v').mkdir()
    before = (tmp_path / 'n1').stat().st_mtime_ns
    again = opened()
    assert (tmp_path / 'n1').stat().st_mtime_ns == before, 'nothing is written anew: the disk may be full'
    again.sweep({'known'})
    (root,) = (tmp_path / 'shm').iterdir()
    assert [p.name for p in root.iterdir()] == ['known']
    discard(tmp_path / 'n1')
    assert not list((tmp_path / 'shm').iterdir())
    assert not (tmp_path / 'n1' / LINK).is_symlink()
    discard(tmp_path / 'n1')


def test_a_disk_is_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr('knode.volumes.memory._file_system', lambda path: 'ext4')
    assert Memory.open(str(tmp_path), tmp_path).directory('u1') is None
    assert Memory.open('', tmp_path).directory('u1') is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('isolates', 'cluster_dns', 'spec', 'told'),
    [
        (True, '127.96.0.10', {}, ''),
        (True, '', {}, '127.128.0.1:10053'),
        (False, '127.96.0.10', {}, '127.128.0.1:10053'),
        (False, '', {'dnsPolicy': 'Default'}, ''),
        (False, '', {'hostNetwork': True}, ''),
        (False, '', {'hostNetwork': True, 'dnsPolicy': 'ClusterFirstWithHostNet'}, '127.128.0.1:10053'),
    ],
)
def test_the_name_server_is_in_the_environment_where_resolv_conf_cannot_name_it(
    volumes, make_pod, tmp_path, *, isolates, cluster_dns, spec, told
):
    volumes._host.cluster_dns, volumes._host.name_server = cluster_dns, '127.128.0.1:10053'
    volumes._can = lambda: Capabilities(isolates_fs=isolates)
    (tmp_path / 'pods' / 'u1').mkdir(parents=True)
    started = ContainerSpec(
        id='c', name='c', attempt=0, argv=('x',), env={}, cwd=str(tmp_path), log=str(tmp_path / 'l')
    )
    made = volumes.mount(make_pod(**spec), {'name': 'c'}, started)
    assert made.env.get('KUBELING_NAMESERVER', '') == told
    assert any(m.target == '/etc/resolv.conf' for m in made.mounts) == (isolates and bool(cluster_dns))
