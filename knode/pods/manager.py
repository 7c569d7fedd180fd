"""The pods of this node: one worker each, fed by the API's view of what is bound here.

Pods are told apart by uid, never by name. At the start the checkpoints come first, so that running pods are adopted
(and restarted when they crash) even while the API is away; once the API has been heard, what it does not know ends.
"""

from __future__ import annotations

import asyncio
import gc
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import structlog

from kclient.informer import Informer
from kcore.meta.objects import deleting, is_pod_finished, key_of
from kcore.tasks import start
from knode.pods.admission import PREEMPTED, PREFIX, Judgement, judge, no_room, victims
from knode.pods.checkpoint import Checkpoint
from knode.pods.host import Host
from knode.pods.model import Obj, Verdict
from knode.pods.resize import objection
from knode.pods.resources import priority
from knode.pods.statuses import Statuses
from knode.pods.worker import PodWorker
from knode.runtime.process import kill_marked, kill_shim
from knode.runtime.shim.state import STATE_FILE, latest
from knode.static.manifest import is_mirror, is_static
from knode.static.mirrors import Mirrors

log = structlog.get_logger('knode.pods')

COLLECT_AFTER = 50
"""Pods gone until their memory is looked for. A worker and its parts refer to each other, and the collector by itself
comes by once in millions of objects: hundreds of pods that are gone would stay, each with its object."""
SHUT = Verdict('NodeShutdown', 'Pod was rejected as the node is shutting down.')


class PodManager:
    def __init__(self, host: Host, informer: Informer, statuses: Statuses, mirrors: Mirrors) -> None:
        self._host, self._informer, self._statuses, self._mirrors = host, informer, statuses, mirrors
        self.workers: dict[str, PodWorker] = {}
        self.closing = False
        """The node shuts down: what is bound to it now is refused."""
        self._group: asyncio.TaskGroup | None = None
        host.freed = self._resize_others
        self._adopted = asyncio.Event()
        self._old: list[PodWorker] = []
        self._gone = 0
        self._static: dict[str, Obj] | None = None
        """By uid, what the manifests ask for; None while they have not been read."""
        self._awaiting: set[str] = set()
        """Uids of critical pods for which others are making room."""

    async def run(self) -> NoReturn:
        """Adopt, then follow the API. Cancelling leaves the pods running."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            checkpoints = self._host.checkpoints.load()
            await self._bury_strangers({c.uid for c in checkpoints})
            for checkpoint in checkpoints:
                self._host.addresses.adopt(checkpoint.uid, checkpoint.address)
                self._old.append(self._begin(checkpoint))
            self._adopted.set()
            self._follow_static()
            await self._informer.synced()
            self._informer.on_change(self._changed)
            known = {o['metadata']['uid'] for o in self._informer.store.list()}
            for uid, worker in self.workers.items():
                if uid not in known and not is_static(worker.pod):
                    worker.remove()
            await asyncio.Event().wait()
        raise AssertionError('workers never end the manager')

    async def adopted(self) -> None:
        """Return once the API has heard of every pod that an earlier agent left running."""
        await self._adopted.wait()
        for worker in self._old:
            await worker.teller.begun.wait()
        await self._statuses.sent({w.uid for w in self._old})

    def set_static(self, pods: Sequence[Obj]) -> None:
        """These are all the static pods that there should be."""
        self._static = {p['metadata']['uid']: p for p in pods}
        self._follow_static()

    def _follow_static(self) -> None:
        """End static pods without a manifest, begin those without a worker; of one name there is one at a time."""
        if self._static is None or not self._adopted.is_set() or self.closing:
            return
        workers = {w.key: w for w in self.workers.values() if is_static(w.pod)}
        for worker in workers.values():
            if worker.uid not in self._static:
                worker.retire()
        for uid, pod in self._static.items():
            if uid not in self.workers and key_of(pod) not in workers:
                self._admit(pod)
        self._mirrors.settle()

    async def terminate(self, verdict: Verdict, phases: Mapping[int, float]) -> None:
        """End every pod and return once the API has been told that each of them has ended.

        phases:  most seconds by the priority from which on pods have them; the least important go first. A pod below
                 all of them goes with the first.
        """
        self.closing = True
        living = [w for w in self.workers.values() if not w.removed and not w.ended]
        limits = sorted(phases)
        for index, least in enumerate(limits):
            part = [w for w in living if max(bisect_right(limits, priority(w.pod)) - 1, 0) == index]
            for worker in part:
                grace = float(worker.pod['spec'].get('terminationGracePeriodSeconds', 30))
                worker.end(replace(verdict, grace_s=min(grace, phases[least])))
            for worker in part:
                await worker.until(lambda w: w.ended or w.removed)
        await self._statuses.sent({w.uid for w in living})

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        old, new = (None if o is not None and is_mirror(o) else o for o in (old, new))
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
            self._resize(known)
        elif is_pod_finished(new) or (new['metadata'].get('deletionTimestamp') and not new['spec'].get('nodeName')):
            if new['metadata'].get('deletionTimestamp'):
                self._statuses.finish_unknown(new)
        elif new['metadata'].get('deletionTimestamp'):
            self._statuses.finish_unknown(new)  # never started here: nothing to end
        else:
            self._admit(new)

    def _admit(self, pod: Obj) -> None:
        if pod['metadata']['uid'] in self._awaiting:
            return
        found = self._judge(pod)
        if not found.shortages:
            self._take(pod, found.verdict)
            return
        holders = {w.uid: w for w in self.workers.values() if w.holds_resources}
        chosen = victims(pod, [w.pod for w in holders.values()], found.shortages)
        if chosen is None:
            self._take(pod, no_room(found.shortages))
            return
        assert self._group is not None
        self._awaiting.add(pod['metadata']['uid'])
        start(
            self._group,
            f'room for {key_of(pod)}',
            self._make_room(pod, [holders[v['metadata']['uid']] for v in chosen], found.shortages[0].name),
        )

    def _judge(self, pod: Obj) -> Judgement:
        if (verdict := SHUT if self.closing else self._host.refusal(pod)) is not None:
            return Judgement(verdict)
        others = [w.pod for w in self.workers.values() if w.holds_resources]
        return judge(pod, others, self._host.allocatable, self._host.node())

    def _resize(self, worker: PodWorker) -> None:
        """Grant what the pod wants, or say why not."""
        if not worker.resizing:
            return
        others = [w.pod for w in self.workers.values() if w is not worker and w.holds_resources]
        pending = objection(worker.wanted, others, self._host.allocatable, self._host.node())
        if pending is not None:
            worker.put_off(pending)
        else:
            worker.grant()
            self._resize_others()

    def _resize_others(self) -> None:
        """Something has become free: grant what had to wait for it."""
        for worker in [w for w in self.workers.values() if w.pending is not None]:
            self._resize(worker)

    def _take(self, pod: Obj, verdict: Verdict | None) -> None:
        worker = self._begin(Checkpoint(pod=pod))
        self._host.metrics.pod_seen(len(pod['spec']['containers']))
        if verdict is not None:
            self._host.metrics.pod_rejected(verdict.reason)
            worker.refuse(verdict)
            self._host.emit(pod, 'Warning', verdict.reason, verdict.message.removeprefix(PREFIX))

    async def _make_room(self, pod: Obj, chosen: Sequence[PodWorker], lacking: str) -> None:
        """End these pods, then take the critical one, if it is still wanted. lacking: the resource that was short."""
        uid = pod['metadata']['uid']
        for worker in chosen:
            log.warning('pod preempted', object=worker.key, critical=key_of(pod))
            self._host.metrics.preempted(lacking)
            worker.announce('Warning', PREEMPTED.reason, PREEMPTED.message)
            worker.end(PREEMPTED)
        for worker in chosen:
            await worker.until(lambda w: w.ended or w.removed)
        self._awaiting.discard(uid)
        now = (self._static or {}).get(uid) if is_static(pod) else self._informer.store.get(key_of(pod))
        if now is not None and now['metadata']['uid'] == uid and not deleting(now):
            self._admit(now)

    def _begin(self, checkpoint: Checkpoint) -> PodWorker:
        assert self._group is not None
        worker = PodWorker(self._host, checkpoint)
        self.workers[worker.uid] = worker
        if is_static(worker.pod):
            self._mirrors.keep(worker.pod)
        start(self._group, f'pod {worker.key}', self._work(worker))
        return worker

    async def _work(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:  # the node's other pods must not pay for it; the pod is taken up again at the next start
            log.exception('pod worker died', object=worker.key, uid=worker.uid)
        finally:
            self.workers.pop(worker.uid, None)
            worker.teller.begun.set()
            worker.volumes.release()
            if is_static(worker.pod):
                self._mirrors.drop(worker.pod)
                if worker.gone:
                    self._follow_static()
            self._resize_others()
            self._gone += 1
            if self._gone % COLLECT_AFTER == 0:
                gc.collect()

    async def _bury_strangers(self, known: set[str]) -> None:
        """Pod directories without a checkpoint: an earlier agent died while making or removing them."""
        for directory in self._host.checkpoints.strangers(known):
            killed = await self._host.env.disk.offload(self._kill, directory)
            self._host.metrics.orphan_found()
            log.warning('stranger removed', directory=directory.name, killed=killed)
            await self._host.checkpoints.remove(directory.name)
        self._host.memory.sweep(known)

    def _kill(self, directory: Path) -> int:
        try:
            state = latest(self._host.env.disk.read(directory / STATE_FILE))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return 0
        return kill_shim(state) + kill_marked([c['id'] for c in state['containers']])

    def images_in_use(self) -> set[str]:
        """Ids of the images of all containers, also of those that have ended."""
        return {
            str(r.meta.get('image_id', ''))
            for w in self.workers.values()
            for attempts in w.records().values()
            for r in attempts
        }

    def find(self, namespace: str, name: str, uid: str = '') -> PodWorker | None:
        """The worker of a pod by name; of two with the same name the one that is not on its way out."""
        found = [
            w for w in self.workers.values()
            if w.pod['metadata']['namespace'] == namespace and w.pod['metadata']['name'] == name and uid in {'', w.uid}
        ]  # fmt: skip
        return next((w for w in found if not w.removed), found[0] if found else None)
