"""Images: what the node lists, and environments made of requirements."""

from __future__ import annotations

import asyncio
import subprocess
import zipfile

import pytest

from knode.errors import ImageError, InvalidImageName
from knode.images.store import ImageStore

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
    assert {'names': [image.id], 'sizeBytes': 0} in store.listed()
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
