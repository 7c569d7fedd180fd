"""Static pods: what a manifest becomes, and how its directory is followed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from knode.static.manifest import ManifestError, is_mirror, is_static, mirror_of, static_pod
from knode.static.source import StaticSource

NOW = datetime(2026, 1, 2, tzinfo=UTC)
WEB = b"""
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers: [{name: c, image: busybox}]
"""


def test_a_manifest_becomes_a_pod_of_its_node():
    pod = static_pod(WEB, '/m/web.yaml', 'Node-1', NOW)
    meta = pod['metadata']
    assert (meta['name'], meta['namespace'], meta['labels']) == ('web-node-1', 'default', {'app': 'web'})
    assert meta['annotations'] == {
        'kubernetes.io/config.hash': meta['uid'],
        'kubernetes.io/config.seen': '2026-01-02T00:00:00Z',
        'kubernetes.io/config.source': 'file',
    }
    assert pod['spec']['nodeName'] == 'Node-1'
    assert {'operator': 'Exists', 'effect': 'NoExecute'} in pod['spec']['tolerations']
    assert is_static(pod)


def test_the_uid_changes_with_the_manifest_its_file_and_its_node_and_with_nothing_else():
    uid = static_pod(WEB, '/m/a', 'n', NOW)['metadata']['uid']
    assert uid == static_pod(WEB + b'# a comment', '/m/a', 'n', NOW.replace(year=2027))['metadata']['uid']
    others = [(WEB.replace(b'busybox', b'nginx'), '/m/a', 'n'), (WEB, '/m/b', 'n'), (WEB, '/m/a', 'other')]
    assert len({uid, *(static_pod(*o, NOW)['metadata']['uid'] for o in others)}) == 4


def test_a_mirror_names_the_pod_it_shows_and_belongs_to_the_node():
    pod = static_pod(WEB, '/m/web.yaml', 'n', NOW)
    mirror = mirror_of(pod, {'metadata': {'name': 'n', 'uid': 'node-uid'}})
    assert mirror['metadata']['annotations']['kubernetes.io/config.mirror'] == pod['metadata']['uid']
    assert 'uid' not in mirror['metadata']
    assert mirror['metadata']['ownerReferences'] == [
        {'apiVersion': 'v1', 'kind': 'Node', 'name': 'n', 'uid': 'node-uid', 'controller': True}
    ]
    assert is_mirror(mirror)
    assert not is_static(mirror)


@pytest.mark.parametrize(
    ('manifest', 'complaint'),
    [
        (b'[', 'neither YAML nor JSON'),
        (b'3', 'no object'),
        (WEB.replace(b'Pod', b'Service'), 'not a Pod of v1'),
        (WEB.replace(b'web,', b'"../up",'), 'no name of a pod'),
        (WEB.replace(b'image: busybox', b'x: y'), 'a name and an image'),
        (WEB.replace(b'name: c', b'name: ../c'), 'a name and an image'),
        (b'{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}', 'spec.containers'),
    ],
)
def test_what_describes_no_pod_is_refused(manifest, complaint):
    with pytest.raises(ManifestError, match=complaint):
        static_pod(manifest, '/m/x', 'n', NOW)


class Told:
    def __init__(self) -> None:
        self.names: list[str] = []
        self._changed = asyncio.Event()

    def __call__(self, pods) -> None:
        self.names = sorted(p['metadata']['name'] for p in pods)
        self._changed.set()

    async def next(self) -> list[str]:
        async with asyncio.timeout(10):
            await self._changed.wait()
        self._changed.clear()
        return self.names


async def test_the_directory_is_followed(env, tmp_path):
    told = Told()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(StaticSource(env, tmp_path, 'n', told).run())
        assert await told.next() == []
        (tmp_path / '.hidden').write_bytes(WEB)
        (tmp_path / 'web.yaml').write_bytes(WEB)
        assert await told.next() == ['web-n']
        (tmp_path / 'other.json').write_bytes(WEB.replace(b'name: web', b'name: other'))
        assert await told.next() == ['other-n', 'web-n']
        (tmp_path / 'web.yaml').unlink()
        assert await told.next() == ['other-n']
        following.cancel()


async def test_a_file_that_is_being_written_keeps_its_pod(env, tmp_path):
    told = Told()
    (tmp_path / 'web.yaml').write_bytes(WEB)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(StaticSource(env, tmp_path, 'n', told).run())
        assert await told.next() == ['web-n']
        (tmp_path / 'web.yaml').write_bytes(WEB[:40])
        (tmp_path / 'z.yaml').write_bytes(WEB.replace(b'name: web', b'name: z'))
        assert await told.next() == ['web-n', 'z-n']
        following.cancel()
