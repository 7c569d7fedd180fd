"""The directory of static pod manifests: read at each change of a file, and every 20 seconds in case one was missed.

Files whose names begin with a dot are left alone, as are directories. A file that cannot be read right now (an editor
is writing it) keeps the pod it last described. Source: pkg/kubelet/config/file_linux.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import structlog

from kcore.env import Env
from knode.inotify import DirectoryWatch
from knode.static.manifest import ManifestError, Obj, static_pod

log = structlog.get_logger('knode.static')

RESCAN_S = 20.0


class StaticSource:
    """`changed` gets all the directory's pods, at first and after each change of any of them."""

    def __init__(self, env: Env, path: Path, node: str, changed: Callable[[Sequence[Obj]], None]) -> None:
        self._env, self._path, self._node, self._changed = env, path, node, changed
        self._pods: dict[str, Obj] = {}
        """By file name."""
        self._complaints: dict[str, str] = {}
        self._told: list[str] | None = None

    async def run(self) -> NoReturn:
        """Raises OSError when there is no such directory."""
        with DirectoryWatch(self._path) as watch:
            while True:
                watch.changed.clear()
                self._pods = await self._env.disk.offload(self._scan)
                self._tell()
                try:
                    async with asyncio.timeout(RESCAN_S):
                        await watch.changed.wait()
                except TimeoutError:
                    continue

    def _tell(self) -> None:
        by_name: dict[tuple[str, str], Obj] = {}
        for file, pod in sorted(self._pods.items()):
            key = (pod['metadata']['namespace'], pod['metadata']['name'])
            if by_name.setdefault(key, pod) is not pod:
                self._complain(file, f'another file describes a pod named {key[1]} in {key[0]} too')
        uids = sorted(p['metadata']['uid'] for p in by_name.values())
        if uids != self._told:
            log.info('static pods', path=str(self._path), pods=len(uids))
            self._told = uids
            self._changed(list(by_name.values()))

    def _scan(self) -> dict[str, Obj]:
        found: dict[str, Obj] = {}
        for name in self._env.disk.listdir(self._path):
            if name.startswith('.') or (self._path / name).is_dir():
                continue
            try:
                data = self._env.disk.read(self._path / name)
                pod = static_pod(data, str(self._path / name), self._node, self._env.clock.wall())
            except FileNotFoundError:
                continue
            except (OSError, ManifestError) as e:
                self._complain(name, str(e))
                if name in self._pods:
                    found[name] = self._pods[name]
                continue
            self._complaints.pop(name, None)
            before = self._pods.get(name)
            same = before is not None and before['metadata']['uid'] == pod['metadata']['uid']
            found[name] = before if same and before is not None else pod
        return found

    def _complain(self, file: str, text: str) -> None:
        """Once for each different text."""
        if self._complaints.get(file) != text:
            self._complaints[file] = text
            log.error('static pod manifest ignored', file=file, err=text)
