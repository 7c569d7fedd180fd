"""The pods of this node: one worker each, fed by the API's view of what is bound here.

Pods are told apart by uid, never by name. At the start the checkpoints come first, so that running pods are adopted
(and restarted when they crash) even while the API is away; once the API has been heard, what it does not know ends.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NoReturn

import orjson
import structlog

from kclient.informer import Informer
from kcore.meta.objects import is_pod_finished
from kcore.tasks import start
from knode.pods.checkpoint import Checkpoint
from knode.pods.host import Host
from knode.pods.model import Obj
from knode.pods.statuses import Statuses
from knode.pods.worker import PodWorker
from knode.runtime.process import kill_marked, kill_shim
from knode.runtime.shim.core import STATE_FILE

log = structlog.get_logger('knode.pods')


class PodManager:
    def __init__(self, host: Host, informer: Informer, statuses: Statuses) -> None:
        self._host, self._informer, self._statuses = host, informer, statuses
        self.workers: dict[str, PodWorker] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> NoReturn:
        """Adopt, then follow the API. Cancelling leaves the pods running."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            checkpoints = self._host.checkpoints.load()
            await self._bury_strangers({c.uid for c in checkpoints})
            for checkpoint in checkpoints:
                self._host.addresses.adopt(checkpoint.uid, checkpoint.address)
                self._begin(checkpoint)
            await self._informer.synced()
            self._informer.on_change(self._changed)
            known = {o['metadata']['uid'] for o in self._informer.store.list()}
            for uid in self.workers.keys() - known:
                self.workers[uid].remove()
            await asyncio.Event().wait()
        raise AssertionError('workers never end the manager')

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        old_uid = old['metadata']['uid'] if old else ''
        new_uid = new['metadata']['uid'] if new else ''
        if old_uid and old_uid != new_uid and old_uid in self.workers:
            assert old is not None
            worker = self.workers[old_uid]
            if old['metadata'].get('deletionTimestamp'):
                worker.update(old)
            worker.remove()
        if new is None:
            return
        known = self.workers.get(new_uid)
        if known is not None:
            known.update(new)
        elif is_pod_finished(new) or (new['metadata'].get('deletionTimestamp') and not new['spec'].get('nodeName')):
            if new['metadata'].get('deletionTimestamp'):
                self._statuses.finish_unknown(new)
        elif new['metadata'].get('deletionTimestamp'):
            self._statuses.finish_unknown(new)  # never started here: nothing to end
        else:
            self._begin(Checkpoint(pod=new))

    def _begin(self, checkpoint: Checkpoint) -> None:
        assert self._group is not None
        worker = PodWorker(self._host, checkpoint)
        self.workers[worker.uid] = worker
        start(self._group, f'pod {worker.key}', self._work(worker))

    async def _work(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:  # the node's other pods must not pay for it; the pod is taken up again at the next start
            log.exception('pod worker died', object=worker.key, uid=worker.uid)
        finally:
            self.workers.pop(worker.uid, None)

    async def _bury_strangers(self, known: set[str]) -> None:
        """Pod directories without a checkpoint: an earlier agent died while making or removing them."""
        for directory in self._host.checkpoints.strangers(known):
            killed = await self._host.env.disk.offload(self._kill, directory)
            log.warning('stranger removed', directory=directory.name, killed=killed)
            await self._host.checkpoints.remove(directory.name)

    def _kill(self, directory: Path) -> int:
        try:
            state = orjson.loads(self._host.env.disk.read(directory / STATE_FILE))
        except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
            return 0
        return kill_shim(state) + kill_marked([c['id'] for c in state['containers']])

    def find(self, namespace: str, name: str, uid: str = '') -> PodWorker | None:
        """The worker of a pod by name; of two with the same name the one that is not on its way out."""
        found = [
            w for w in self.workers.values()
            if w.pod['metadata']['namespace'] == namespace and w.pod['metadata']['name'] == name and uid in {'', w.uid}
        ]  # fmt: skip
        return next((w for w in found if not w.removed), found[0] if found else None)
