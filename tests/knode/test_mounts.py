"""Volumes at their real mount paths, where the kernel allows."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from knode.pods.execute import capture
from knode.runtime.driver import Mount, Sandbox
from knode.runtime.shim import mounts


@pytest.fixture
async def isolates(rig):
    """The rig's containers have mount namespaces."""
    await rig.driver.prepare()
    if not rig.driver.capabilities.isolates_fs:
        pytest.skip('this kernel gives this user no mount namespaces')


@pytest.mark.usefixtures('isolates')
@pytest.mark.parametrize('target', ['/etc/kubeling-test/deep/conf', '/kubeling-test', '/etc/kubeling-file'])
async def test_a_mount_path_is_real_inside_and_absent_outside(rig, eventually, tmp_path, target):
    handle = await rig.open()
    source = tmp_path / 'data'
    (tmp_path / 'staging').mkdir()
    if target.endswith('file'):
        source.write_text('hello')
        command = f'cat {target}; ls /etc/passwd /dev/null; echo x > {target}'
    else:
        source.mkdir()
        (source / 'key').write_text('hello')
        command = f'cat {target}/key; ls /etc/passwd /dev/null; touch {target}/new'
    r = await rig.start(
        handle, 'sh', '-c', command, cwd=str(tmp_path), mounts=(Mount(str(source), target, read_only=True),),
        staging=str(tmp_path / 'staging'),
    )  # fmt: skip
    assert r.message == ''
    done = await eventually(lambda: (x := rig.record(handle, r.id)).finished_ns and x)
    text = Path(r.log).read_text()
    assert 'hello' in text
    assert '/etc/passwd' in text
    assert 'Read-only file system' in text
    assert done.exit_code != 0
    assert not os.path.lexists(target)
    assert not os.path.lexists('/etc/kubeling-test')


@pytest.mark.usefixtures('isolates')
async def test_an_exec_finds_what_is_mounted_below_the_root(rig, tmp_path):
    handle = await rig.open()
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'key').write_text('hello')
    (tmp_path / 'staging').mkdir()
    mount = Mount(str(tmp_path / 'data'), '/kubeling-data')
    r = await rig.start(handle, 'sleep', '1000', mounts=(mount,), staging=str(tmp_path / 'staging'))
    code, output = await capture(rig.driver, handle, r, ['cat', '/kubeling-data/key'])
    assert (code, output) == (1, 'cat: /kubeling-data/key: No such file or directory\n')
    r = replace(r, meta={'mounts': 1})
    assert await capture(rig.driver, handle, r, ['cat', '/kubeling-data/key']) == (0, 'hello')


LOOK = """
import os, socket, stat, sys
print(*(stat.S_ISCHR(os.lstat(f'/dev/{n}').st_mode) for n in ('null', 'zero', 'random', 'tty')))
print(*(stat.S_ISCHR(os.stat(e.path).st_mode) for e in os.scandir('/dev') if e.name in ('ptmx', 'console')))
with open('/dev/null', 'w') as f:
    print('x', file=f)
master, slave = os.openpty()
print(os.path.samefile(os.ttyname(slave), f'/proc/self/fd/{slave}'))
s = socket.socket(socket.AF_UNIX)
s.connect(f'{sys.argv[1]}/there.sock')
print(open(f'{sys.argv[1]}/plain').read(), os.path.islink(f'{sys.argv[1]}/plain'))
os.rename('/dev/new', '/dev/newer')
print(len(open('/proc/self/mountinfo').readlines()) - int(sys.argv[2]) < 40)
"""


@pytest.mark.usefixtures('isolates')
async def test_a_covered_directory_shows_devices_files_and_sockets_with_few_mounts(rig, eventually, tmp_path):
    handle = await rig.open()
    covered = tmp_path / 'covered'
    covered.mkdir()
    (covered / 'plain').write_text('hello')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'look.py').write_text(LOOK)
    targets = ('/dev/one', '/dev/two/three', f'{covered}/missing')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(covered / 'there.sock'))
        listener.listen()
        before = len(Path('/proc/self/mountinfo').read_text().splitlines())
        command = f'touch /dev/new; exec {sys.executable} {tmp_path}/look.py {covered} {before}'
        r = await rig.start(
            handle, 'sh', '-c', command, mounts=tuple(Mount(str(tmp_path / 'data'), t) for t in targets),
            staging=str(tmp_path / 'staging'),
        )  # fmt: skip
        await eventually(lambda: rig.record(handle, r.id).finished_ns)
    lines = [line.split(' ', 3)[3] for line in Path(r.log).read_text().splitlines()]
    assert lines == ['True True True True', 'True True', 'True', 'hello False', 'True']
    assert not os.path.lexists('/dev/newer')


@pytest.mark.usefixtures('isolates')
async def test_a_mount_path_may_lead_through_links_and_upwards(rig, eventually, tmp_path):
    handle = await rig.open()
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'key').write_text('hello')
    (tmp_path / 'way').mkdir()
    (tmp_path / 'way' / 'there').symlink_to(tmp_path / 'way')
    (tmp_path / 'way' / 'nowhere').symlink_to(tmp_path / 'missing' / 'deep')
    targets = [str(tmp_path / 'way' / t) for t in ('there//a/./b', 'nowhere/c', 'gone/../d')]
    r = await rig.start(
        handle, 'cat', *(f'{t}/key' for t in (*targets[:2], tmp_path / 'way' / 'd')),
        mounts=tuple(Mount(str(tmp_path / 'data'), t) for t in targets), staging=str(tmp_path / 'staging'),
    )  # fmt: skip
    assert r.message == ''
    done = await eventually(lambda: (x := rig.record(handle, r.id)).finished_ns and x)
    assert (done.exit_code, Path(r.log).read_text().count('hello')) == (0, 3)
    assert sorted(p.name for p in (tmp_path / 'way').iterdir()) == ['nowhere', 'there']
    assert not (tmp_path / 'missing').exists()


@pytest.mark.usefixtures('isolates')
@pytest.mark.skipif(not Path('/dev/tty1').exists(), reason='a machine without consoles')
async def test_the_machines_consoles_are_not_shown_where_devices_are_covered(rig, eventually, tmp_path):
    (tmp_path / 'data').mkdir()
    mount = Mount(str(tmp_path / 'data'), '/dev/one')
    r = await rig.start(handle := await rig.open(), 'ls', '/dev', mounts=(mount,), staging=str(tmp_path / 'staging'))
    await eventually(lambda: rig.record(handle, r.id).finished_ns)
    shown = {line.split(' ', 3)[3] for line in Path(r.log).read_text().splitlines()}
    assert {'null', 'one', 'ptmx', 'tty'} <= shown
    assert not shown & {'tty0', 'tty1', 'vcs', 'vcs1'}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_sub_path_is_made_like_its_volume(tmp_path):
    tmp_path.chmod(0o2777)
    os.close(mounts.open_beneath(str(tmp_path), 'a/./b'))
    assert (mode(tmp_path / 'a'), mode(tmp_path / 'a' / 'b')) == (0o2777, 0o2777)


@pytest.mark.parametrize('trap', ['/', '..', '../..', '/etc'])
@pytest.mark.parametrize('sub', ['trap', 'trap/new', 'trap/new/deep'])
def test_a_sub_path_never_leads_out_of_its_volume(tmp_path, trap, sub):
    volume = tmp_path / 'volume'
    volume.mkdir()
    (volume / 'trap').symlink_to(trap)
    with pytest.raises(mounts.MountError):
        mounts.open_beneath(str(volume), sub)
    assert not (tmp_path / 'new').exists()
    assert not Path('/new').exists()


def test_a_sub_path_follows_links_that_stay_inside(tmp_path):
    (tmp_path / '..data').symlink_to('..1')
    (tmp_path / '..1').mkdir()
    (tmp_path / '..1' / 'key').write_text('value')
    (tmp_path / 'key').symlink_to('..data/key')
    fd = mounts.open_beneath(str(tmp_path), 'key')
    assert Path(f'/proc/self/fd/{fd}').read_text() == 'value'
    os.close(fd)


@pytest.mark.usefixtures('isolates')
async def test_a_volume_in_memory_is_shared_bounded_and_gone_with_the_sandbox(rig, eventually, tmp_path):
    volume = tmp_path / 'memory'
    volume.mkdir()
    (tmp_path / 'u1').mkdir()
    sandbox = Sandbox('u1', 'default', 'p', str(tmp_path / 'u1'), memory={str(volume): 1 << 20})
    handle = await rig.driver.open(sandbox, rig.changed)
    told = {}
    for n, script in enumerate(('echo hello > /m/f; hostname', 'cat /m/f; head -c 2000000 /dev/zero > /m/g')):
        (tmp_path / f'staging{n}').mkdir()
        r = await rig.start(
            handle, 'sh', '-c', script, hostname='my-pod', mounts=(Mount(str(volume), '/m'),),
            staging=str(tmp_path / f'staging{n}'),
        )  # fmt: skip
        await eventually(lambda r=r: rig.record(handle, r.id).finished_ns)
        told[n] = Path(r.log).read_text()
    assert 'my-pod' in told[0]
    assert 'hello' in told[1]
    assert 'No space left' in told[1]
    assert not list(volume.iterdir())
    await rig.driver.remove(handle)
    assert str(volume) not in Path('/proc/mounts').read_text()


@pytest.mark.usefixtures('isolates')
@pytest.mark.parametrize('recursive', [False, True])
async def test_what_is_mounted_below_a_read_only_mount_is_read_only_if_asked_for(rig, eventually, tmp_path, recursive):
    for name in ('data/below', 'u1', 'staging'):
        (tmp_path / name).mkdir(parents=True)
    sandbox = Sandbox('u1', 'default', 'p', str(tmp_path / 'u1'), memory={str(tmp_path / 'data' / 'below'): 1 << 20})
    handle = await rig.driver.open(sandbox, rig.changed)
    mount = Mount(str(tmp_path / 'data'), '/m', read_only=True, recursive=recursive)
    r = await rig.start(
        handle, 'sh', '-c', 'touch /m/f || touch /m/below/f', mounts=(mount,), staging=str(tmp_path / 'staging')
    )
    done = await eventually(lambda: (x := rig.record(handle, r.id)).finished_ns and x)
    assert 'Read-only file system' in Path(r.log).read_text()
    assert bool(done.exit_code) == recursive
