"""The images of one node: the catalogue, and environments that are built from Python requirements when first asked for.

`venv:/path/requirements.txt` is a virtual environment with what that file asks for; its Python is the entry point. It
is built once for each content of the file and shared by all pods; building it is what pulling is elsewhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

from kcore.env import Env
from kcore.tasks import start_detached, stop
from knode.errors import ImageError, InvalidImageName
from knode.eviction.disk import usage
from knode.images.catalogue import NAMED, Image, host_environment, resolve

log = structlog.get_logger('knode.images')

SCHEME = 'venv:'
BUILD_TIMEOUT_S = 600.0
READY = 'ready'
"""File in an environment that is complete, with its size in bytes; one without it is built again."""
LISTED_MAX = 50
"""Images named in the node's status, as many as a kubelet names by default."""


class ImageStore:
    def __init__(self, env: Env, root: Path) -> None:
        self._env, self.root = env, root
        self._used: dict[str, float] = {}
        """Wall seconds at which environments were last asked for, by directory name."""
        self._broken: set[str] = set()
        """Directories that could not be removed whole."""
        self._builds: dict[str, asyncio.Task[None]] = {}

    def find(self, reference: str) -> Image | None:
        """None: it has to be pulled first. Raises InvalidImageName and ImageError."""
        if not reference.startswith(SCHEME):
            return resolve(reference)
        home = self._home(reference)
        if not self._env.disk.exists(home / READY):
            return None
        self.touch(home.name)
        path = f'{home / "bin"}:{host_environment()["PATH"]}'
        python = str(home / 'bin' / 'python')
        environment = {'VIRTUAL_ENV': str(home), 'PATH': path}
        return Image(reference, self.id_of(home.name), (python,), env=environment, size_bytes=self._size(home))

    def _home(self, reference: str) -> Path:
        file = Path(reference.removeprefix(SCHEME))
        if not file.is_absolute():
            text = 'venv: needs the absolute path of a requirements file'
            raise InvalidImageName(f'Failed to apply default image tag "{reference}": {text}')
        if not self._env.disk.exists(file):
            raise ImageError(f'image "{reference}" not found: no such file on this node')
        # Requirements may name files beside them: the place counts as well as the content.
        essence = b'\0'.join((sys.version.encode(), os.fsencode(file), self._env.disk.read(file)))
        return self.root / hashlib.sha256(essence).hexdigest()[:16]

    def _size(self, home: Path) -> int:
        return int(self._env.disk.read(home / READY) or 0)

    @staticmethod
    def id_of(name: str) -> str:
        return f'venv://{name}'

    def touch(self, name: str) -> None:
        self._used[name] = self._env.clock.wall().timestamp()

    def built(self) -> dict[str, float]:
        """When each environment was last in use, in wall seconds; one of an earlier agent is new to this one.

        What is left of one that could not be removed has never been in use.
        """
        found = dict.fromkeys(self._broken, 0.0)
        for name in self._env.disk.listdir(self.root):
            if self._env.disk.exists(self.root / name / READY):
                if name not in self._used:
                    self.touch(name)
                found[name] = self._used[name]
        return found

    async def remove(self, name: str) -> int:
        """An environment that nobody uses. Returns the bytes that it took. Raises OSError."""
        self._used.pop(name, None)
        self._broken.add(name)
        size: int = await self._env.disk.offload(_remove, self.root / name)
        self._broken.discard(name)
        return size

    def pull(self, reference: str) -> asyncio.Task[None]:
        """The build of an image that `find` has not found; it ends with ImageError when that fails."""
        home = self._home(reference)
        build = self._builds.get(home.name)
        if build is None or build.done():
            build = self._builds[home.name] = start_detached(f'build {reference}', self._build(reference, home))
        return build

    async def _build(self, reference: str, home: Path) -> None:
        self._env.disk.mkdir(self.root)
        self._broken.discard(home.name)
        await self._env.disk.offload(shutil.rmtree, home, True)
        said = self.root / f'{home.name}.log'
        python, wanted = str(home / 'bin' / 'python'), reference.removeprefix(SCHEME)
        install = ['install', '--no-input', '--disable-pip-version-check', '--requirement', wanted]
        steps = ([sys.executable, '-m', 'venv', str(home)], [python, '-m', 'pip', *install])
        if importlib.util.find_spec('pip') is not None:  # ours can fill it; giving it one of its own takes seconds
            steps = (
                [sys.executable, '-m', 'venv', '--without-pip', str(home)],
                [sys.executable, '-m', 'pip', '--python', python, *install],
            )
        log.info('environment is being built', image=reference, directory=home.name)
        for argv in steps:
            code = await self._run(argv, said)
            if code:
                lines = self._env.disk.read(said).decode(errors='replace').strip().splitlines()
                raise ImageError(f'{argv[2]}: exit code {code}: {lines[-1] if lines else ""}')
        size, _ = await self._env.disk.offload(usage, home)
        self._env.disk.replace(home / READY, str(size).encode())

    async def _run(self, argv: list[str], said: Path) -> int:
        fd = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            process = await self._env.processes.spawn(argv, env=dict(os.environ), stdout=fd, stderr=fd)
        finally:
            os.close(fd)
        ending = start_detached(argv[0], process.wait())
        try:
            async with asyncio.timeout(BUILD_TIMEOUT_S):
                return await asyncio.shield(ending)
        except TimeoutError:
            raise ImageError(f'not built within {BUILD_TIMEOUT_S:g} s') from None
        finally:
            if not ending.done():
                process.signal(signal.SIGKILL)
                await ending

    def listed(self) -> list[dict[str, Any]]:
        """For the node's status: names and sizes. What is part of this program, or of the host, has no size."""
        return [{'names': names, 'sizeBytes': size} for names, size in self._present()][:LISTED_MAX]

    def _present(self) -> Iterator[tuple[list[str], int]]:
        for home in sorted(self._env.disk.listdir(self.root)):
            if self._env.disk.exists(self.root / home / READY):
                yield [self.id_of(home)], self._size(self.root / home)
        yield from (([f'docker.io/library/{name}:latest', name], 0) for name in sorted(NAMED))

    async def close(self) -> None:
        for build in self._builds.values():
            if not build.done():
                await stop(build)


def _remove(home: Path) -> int:
    """Blocking. Not ready any more before anything of it is gone."""
    (home / READY).unlink(missing_ok=True)
    size, _ = usage(home)
    if home.exists():
        shutil.rmtree(home)
    home.with_name(f'{home.name}.log').unlink(missing_ok=True)
    return size
