"""Images: what the node lists, and environments made of requirements."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import zipfile

import aiohttp
import pytest

from kcore.metrics import render
from kcore.sim import World as SimWorld
from knode.errors import ImageError, InvalidImageName
from knode.images.catalogue import host_environment
from knode.images.collector import GcPolicy, ImageCollector, excess
from knode.images.store import ImageStore
from knode.pods.metrics import KubeletMetrics
from tests.knode.virtual_node import InlineDisk

WHEEL = {
    'demo.py': 'WORD = "hello"\n',
    'demo-1.0.dist-info/METADATA': 'Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n',
    'demo-1.0.dist-info/WHEEL': 'Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    'demo-1.0.dist-info/RECORD': '',
}


@pytest.fixture
def store(env, tmp_path):
    return ImageStore(env, tmp_path / 'images')


@pytest.mark.e2e
async def test_an_environment_is_built_once_and_has_what_was_required(store, tmp_path):
    with zipfile.ZipFile(tmp_path / 'demo-1.0-py3-none-any.whl', 'w') as wheel:
        for name, text in WHEEL.items():
            wheel.writestr(name, text)
    (tmp_path / 'requirements.txt').write_text(f'{tmp_path}/demo-1.0-py3-none-any.whl\n')
    reference = f'venv:{tmp_path}/requirements.txt'
    assert store.find(reference) is None
    assert store.pull(reference) is store.pull(reference)
    await store.pull(reference)
    image = store.find(reference)
    run = [*image.entrypoint, '-c', 'import demo; print(demo.WORD)']
    process = await asyncio.create_subprocess_exec(*run, stdout=subprocess.PIPE)
    assert (await process.communicate())[0] == b'hello\n'
    assert image.env['PATH'].startswith(image.env['VIRTUAL_ENV'])
    assert image.size_bytes > 10_000
    assert {'names': [image.id], 'sizeBytes': image.size_bytes} in store.listed()
    (tmp_path / 'requirements.txt').write_text('./none-1.0-py3-none-any.whl\n')
    assert store.find(reference) is None
    with pytest.raises(ImageError, match=r'pip: exit code 1: ERROR: .*none-1\.0-py3-none-any\.whl'):
        await store.pull(reference)
    assert store.find(reference) is None


@pytest.mark.parametrize(
    ('reference', 'error'), [('venv:requirements.txt', InvalidImageName), ('venv:/no/such', ImageError)]
)
def test_requirements_have_to_be_there(store, reference, error):
    with pytest.raises(error):
        store.find(reference)


def test_the_catalogue_is_listed_by_the_names_that_people_use(store):
    names = {n for image in store.listed() for n in image['names']}
    assert {'busybox', 'docker.io/library/nginx:latest', 'agnhost'} <= names


@pytest.mark.parametrize(
    ('reference', 'args', 'port', 'says'),
    [
        ('hashicorp/http-echo:1.0', ['-text=hello', '-listen=:5679'], 5679, 'hello\n'),
        ('gcr.io/google-samples/hello-app:1.0', [], 8080, 'Hello, world!\nVersion: 1.0.0\nHostname: p\n'),
        ('nginxinc/nginx-unprivileged', [], 8080, 'my page'),
        ('registry.k8s.io/e2e-test-images/agnhost:2.53', ['netexec'], 8080, 'NOW: '),
        ('registry.k8s.io/e2e-test-images/agnhost:2.53', ['serve-hostname', '--port=8081'], 8081, 'p'),
    ],
)
async def test_a_named_server_answers_as_people_expect(store, env, tmp_path, *, reference, args, port, says):
    (tmp_path / 'index.html').write_text('my page')
    address = f'127.{os.getpid() % 200 + 2}.7.{port % 200 + 2}'
    image = store.find(reference)
    process = await env.processes.spawn(
        [*image.entrypoint, *args], cwd=tmp_path,
        env={**host_environment(), 'POD_IP': address, 'HOSTNAME': 'p', 'WEB_ROOT': str(tmp_path)},
    )  # fmt: skip
    try:
        async with asyncio.timeout(30), aiohttp.ClientSession() as http:
            while True:
                try:
                    async with http.get(f'http://{address}:{port}/') as answer:
                        assert (await answer.text()).startswith(says)
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)
    finally:
        process.signal(signal.SIGTERM)
        assert await process.wait() == 0


def test_a_named_server_ends_also_when_its_main_thread_never_comes_back_to_python():
    code = (
        'import os, signal, threading; from knode.images.ending import end_at; end_at(signal.SIGTERM);'
        'held = threading.Lock(); held.acquire();'
        'signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM});'  # so another thread gets it, as it were too early
        'os.kill(os.getpid(), signal.SIGTERM); held.acquire()'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False, timeout=60).returncode == 0


# --- collecting what nobody uses

GIB = 1 << 30


@pytest.mark.parametrize(
    ('available', 'expected'),
    [(16 * GIB, 0), (15 * GIB, 5 * GIB), (5 * GIB, 15 * GIB), (0, 20 * GIB)],
    ids=['84 %', '85 %', '95 %', 'full'],
)
def test_images_are_removed_from_the_high_threshold_down_to_the_low_one(available, expected):
    assert excess(available, 100 * GIB, GcPolicy(85, 80, 120)) == expected
    assert excess(available, 100 * GIB, GcPolicy(100, 80, 120)) == 0


class Garbage:
    """Environments of 1 MiB each, in virtual time; `disk` is (available, capacity)."""

    def __init__(self, root, *names, maximum_age_s=0.0):
        self.world = SimWorld(1)
        self.env = dataclasses.replace(self.world.host('n').env, disk=InlineDisk())
        self.store = ImageStore(self.env, root)
        for name in names:
            (root / name).mkdir()
            (root / name / 'ready').touch()
            (root / name / 'data').write_bytes(b'x' * (1 << 20))
        self.in_use, self.said, self.metrics = set(), [], KubeletMetrics()
        self.collector = ImageCollector(
            self.env, self.store, GcPolicy(85, 80, 120, maximum_age_s), in_use=lambda: self.in_use,
            metrics=self.metrics, said=lambda reason, text: self.said.append((reason, text)),
        )  # fmt: skip

    def full(self, missing):
        """So full that so many bytes are missing from the low threshold."""
        self.collector.disk = lambda root: (20 * GIB - missing, 100 * GIB)


def test_of_unused_images_those_unused_for_longest_go_until_there_is_room(tmp_path):
    g = Garbage(tmp_path, 'a', 'b', 'c', 'd')

    async def script():
        assert set(g.store.built()) == {'a', 'b', 'c', 'd'}
        g.in_use = {'venv://d'}
        for name in ('c', 'a', 'b'):
            await asyncio.sleep(10)
            g.store.touch(name)
        await asyncio.sleep(125)
        assert await g.collector.free(1 << 20) >= 1 << 20

    g.world.run(script())
    assert set(g.store.built()) == {'a', 'b', 'd'}
    assert 'kubelet_image_garbage_collected_total{reason="space"} 1.0' in render(g.metrics.registry).decode()


def test_an_image_that_was_in_use_a_moment_ago_stays_and_the_node_says_what_was_missing(tmp_path):
    g = Garbage(tmp_path, 'a', 'b')

    async def script():
        g.store.built()
        await asyncio.sleep(100)
        g.store.touch('b')
        await asyncio.sleep(30)
        g.full(15 * GIB)
        await g.collector.look()

    g.world.run(script())
    assert set(g.store.built()) == {'b'}
    [(reason, text)] = g.said
    assert reason == 'FreeDiskSpaceFailed'
    assert text.startswith(f'Failed to garbage collect required amount of images. Attempted to free {15 * GIB} bytes,')


def test_an_image_that_nobody_has_used_for_too_long_goes_although_there_is_room(tmp_path):
    g = Garbage(tmp_path, 'a', 'b', maximum_age_s=1000)
    g.full(-50 * GIB)
    left = []

    async def script():
        g.in_use = {'venv://b'}
        for pause in (999, 1, 1):
            await g.collector.look()
            left.append(set(g.store.built()))
            await asyncio.sleep(pause)
        await g.collector.look()

    g.world.run(script())
    assert left == [{'a', 'b'}] * 3
    assert set(g.store.built()) == {'b'}
    assert 'kubelet_image_garbage_collected_total{reason="age"} 1.0' in render(g.metrics.registry).decode()


def test_from_the_second_in_a_row_on_a_failed_collection_is_an_event_of_its_own(tmp_path):
    g = Garbage(tmp_path, 'a')
    g.in_use = {'venv://a'}
    looks = []

    async def script():
        for disk in ((5, 100), (5, 100), (90, 100), (0, 0), (0, 0)):
            g.collector.disk = lambda root, disk=disk: tuple(n * GIB for n in disk)
            await g.collector.look()
            looks.append([reason for reason, _ in g.said])
            g.said.clear()

    g.world.run(script())
    assert looks == [
        ['FreeDiskSpaceFailed'], ['FreeDiskSpaceFailed', 'ImageGCFailed'], [], ['InvalidDiskCapacity'],
        ['InvalidDiskCapacity', 'ImageGCFailed'],
    ]  # fmt: skip


def test_an_image_that_cannot_be_removed_is_told_and_tried_again_and_the_others_go(tmp_path, monkeypatch):
    g = Garbage(tmp_path, 'a', 'b')
    rmtree = shutil.rmtree

    def fails(path, *rest):
        if path.name == 'a':
            raise PermissionError(errno.EACCES, 'Permission denied', str(path))
        rmtree(path, *rest)

    async def script():
        g.store.built()
        await asyncio.sleep(200)
        g.full(15 * GIB)
        await g.collector.look()
        await g.collector.look()
        monkeypatch.setattr('knode.images.store.shutil.rmtree', rmtree)
        assert await g.collector.free() >= 1 << 20

    monkeypatch.setattr('knode.images.store.shutil.rmtree', fails)
    g.world.run(script())
    [(reason, text)] = g.said
    assert reason == 'ImageGCFailed'
    assert text.endswith(f'with errors in image deletion: [venv://a: {tmp_path}/a: permission denied]')
    assert not list(tmp_path.iterdir())


def test_a_full_disk_without_any_environment_is_not_the_fault_of_images(tmp_path):
    g = Garbage(tmp_path)
    g.full(20 * GIB)
    g.world.run(g.collector.look())
    assert g.said == []
