"""What the agent must still know after it was killed: which pods it runs, where, under which handle and address.

One JSON file a pod, in the pod's directory, replaced atomically. Written before the first container starts. Only that
a pod was ended is synced: a power cut ends every container anyway, and the API knows what is bound here.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import structlog

from kcore.env import Env
from knode.pods.model import Verdict
from knode.runtime.driver import Handle

log = structlog.get_logger('knode.checkpoint')

FILE = 'pod.json'


@dataclass(frozen=True, slots=True)
class Checkpoint:
    pod: Mapping[str, Any]
    """The API object as last seen, with the resources that the node has granted."""
    address: str = ''
    start_time: str = ''
    handle: Handle | None = None
    verdict: Verdict | None = None

    @property
    def uid(self) -> str:
        return str(self.pod['metadata']['uid'])

    def to_json(self) -> bytes:
        return orjson.dumps(
            {
                'version': 1,
                'pod': self.pod,
                'address': self.address,
                'start_time': self.start_time,
                'handle': self.handle.to_json() if self.handle else None,
                'verdict': astuple(self.verdict) if self.verdict else None,
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Checkpoint:
        raw = orjson.loads(data)
        return cls(
            raw['pod'],
            raw['address'],
            raw['start_time'],
            Handle.from_json(raw['handle']) if raw['handle'] else None,
            Verdict(*raw['verdict']) if raw['verdict'] else None,
        )


class Checkpoints:
    """The directory of pod directories."""

    def __init__(self, env: Env, data_dir: Path) -> None:
        self._env = env
        self.root = data_dir / 'pods'

    def directory(self, uid: str) -> Path:
        return self.root / uid

    async def save(self, checkpoint: Checkpoint) -> None:
        directory = self.directory(checkpoint.uid)
        if checkpoint.verdict is None:
            self._write(directory, checkpoint.to_json(), sync=False)
        else:
            await self._env.disk.offload(lambda: self._write(directory, checkpoint.to_json(), sync=True))

    def _write(self, directory: Path, data: bytes, *, sync: bool) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # unsynced, as what is in it
        self._env.disk.replace(directory / FILE, data, sync=sync)

    def load(self) -> list[Checkpoint]:
        """All of them; an unreadable one is logged and left for `strangers`."""
        found = []
        for name in self._env.disk.listdir(self.root):
            try:
                found.append(Checkpoint.from_json(self._env.disk.read(self.root / name / FILE)))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (orjson.JSONDecodeError, KeyError, TypeError) as e:
                log.error('pod checkpoint is broken', directory=name, err=str(e))
        return found

    def strangers(self, known: set[str]) -> list[Path]:
        """Pod directories that no checkpoint vouches for."""
        return [self.root / n for n in self._env.disk.listdir(self.root) if n not in known]

    async def remove(self, uid: str) -> None:
        """The pod's directory with everything in it."""
        await self._env.disk.offload(shutil.rmtree, self.directory(uid), True)


def renewed(checkpoint: Checkpoint, **changes: Any) -> Checkpoint:
    return replace(checkpoint, **changes)
