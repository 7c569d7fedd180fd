"""Volumes at their real mount paths, where the kernel allows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from knode.runtime.driver import Mount


@pytest.mark.parametrize('target', ['/etc/kubeling-test/deep/conf', '/kubeling-test', '/etc/kubeling-file'])
async def test_a_mount_path_is_real_inside_and_absent_outside(rig, eventually, tmp_path, target):
    await rig.driver.prepare()
    if not rig.driver.capabilities.isolates_fs:
        pytest.skip('this kernel gives this user no mount namespaces')
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
