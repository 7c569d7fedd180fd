"""What a pod's worker tells: the status, whenever it differs from the one before, and that a container waits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kcore.meta.times import format_time, parse_time
from knode.pods.host import Host
from knode.pods.launch import termination_message
from knode.pods.model import Obj, View, containers_of
from knode.pods.status import TERMINAL, Place, status
from knode.static.manifest import is_static

if TYPE_CHECKING:
    from knode.pods.worker import PodWorker


class Teller:
    def __init__(self, host: Host, worker: PodWorker) -> None:
        self._host, self._env, self._worker = host, host.env, worker
        self.told: dict[str, Any] | None = None
        """The latest status."""
        self.begun = asyncio.Event()
        """The first status of this worker's life is on its way to the API."""
        self._seen_at = None if worker.checkpoint.handle else self._env.clock.monotonic()
        """When the pod came; None: it runs, or did so before this agent."""
        self._observed = self._seen_at is None or is_static(worker.pod)
        """The API has shown that all of the pod runs, or how long that took is not to be counted."""
        self._messages: dict[str, str] = {}
        """Termination messages by container id."""
        self._backoffs: set[tuple[str, int]] = set()
        """Names and restart counts of containers whose back-off has been announced."""

    def tell(self, view: View, *, done: bool) -> None:
        """done: nothing of the pod runs any more, and it had to end."""
        now = status(view, self._place(view))
        if self._seen_at is not None and now['phase'] != 'Pending':
            self._host.metrics.pod_runs(self._env.clock.monotonic() - self._seen_at)
            self._seen_at = None
        self._announce_backoff(now)
        finished = done and not self._worker.removed
        if now != self.told or finished:
            freed = now['phase'] in TERMINAL and not self._worker.ended
            self.told = now
            self._host.statuses.push(self._worker.pod, now, finished=finished)
            if freed:
                self._host.freed()
        self.begun.set()

    def heard(self, pod: Obj, pulls_s: float) -> None:
        """What the API shows of the pod. pulls_s: seconds that its images took so far."""
        if self._observed:
            return
        shown = (pod.get('status') or {}).get('containerStatuses') or ()
        if not shown or not all('running' in (c.get('state') or {}) for c in shown):
            return
        self._observed = True
        created = parse_time(pod['metadata']['creationTimestamp'])
        self._host.metrics.pod_observed((self._env.clock.wall() - created).total_seconds(), pulls_s)

    def _place(self, view: View) -> Place:
        self._collect_messages(view)
        checkpoint = self._worker.checkpoint
        start_time = checkpoint.start_time or format_time(self._env.clock.wall())
        return Place(checkpoint.address, self._host.host_ip, start_time, self._messages, self.told)

    def _collect_messages(self, view: View) -> None:
        containers = {c['name']: c for c, _ in containers_of(view.spec)}
        known = {r.id: r for attempts in view.records.values() for r in attempts}
        for forgotten in self._messages.keys() - known.keys():
            del self._messages[forgotten]
            self._worker.lifecycle.forget(forgotten)
        for r in known.values():
            if r.finished_ns and r.id not in self._messages:
                container = containers.get(r.name) or {}
                self._messages[r.id] = termination_message(self._worker.paths, container, r, len(containers))

    def _announce_backoff(self, now: Mapping[str, Any]) -> None:
        meta = self._worker.pod['metadata']
        listed = {where: now.get(f'{where[:-1]}Statuses', ()) for where in ('containers', 'initContainers')}
        for where, s in ((where, s) for where, statuses in listed.items() for s in statuses):
            if (s['state'].get('waiting') or {}).get('reason') != 'CrashLoopBackOff':
                continue
            mark = (s['name'], s['restartCount'])
            if mark not in self._backoffs:
                self._backoffs = {m for m in self._backoffs if m[0] != s['name']} | {mark}
                pod_name = f'{meta["name"]}_{meta["namespace"]}({meta["uid"]})'
                text = f'Back-off restarting failed container {s["name"]} in pod {pod_name}'
                self._host.emit(self._worker.pod, 'Warning', 'BackOff', text, container=s['name'], where=where)
