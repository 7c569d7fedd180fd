"""Sends pod statuses to the API: the latest one of each pod, in order, until the API has it.

A worker never waits for the API; an outage of any length costs one pending status a pod. A finished pod's last
status is followed by its deletion with grace 0 and its uid as precondition. What somebody else makes of a status (a
silent node's pods are said to be unready) is put right when it is heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import structlog

from kclient.api import Client
from kclient.errors import ApiError, ClientError, Conflict, NotFound
from kclient.queue import WorkQueue
from kcore.env import Env
from kcore.meta.gvk import PODS
from kcore.tasks import start_restarting
from knode.pods.metrics import KubeletMetrics
from knode.pods.model import Obj
from knode.pods.status import TERMINAL, obsolete

log = structlog.get_logger('knode.statuses')

SETTLE_S = 0.05
"""How long the status of a pod that is starting waits for its next step, which mostly replaces it: a write saved."""
SENDERS = 8
"""Requests in flight at once."""


@dataclass(slots=True)
class _Pending:
    pod: Obj
    status: Mapping[str, Any]
    finished: bool
    since: float
    """Monotonic second of the first change that the API has not got."""
    heard: Obj | None = None
    """The latest the API said while this was on its way."""


@dataclass(frozen=True, slots=True)
class _Told:
    revision: int
    """From this resourceVersion on the API has it."""
    status: Mapping[str, Any]


class Statuses:
    def __init__(self, client: Client, env: Env, metrics: KubeletMetrics) -> None:
        self._client, self._env, self._metrics = client, env, metrics
        self._queue: WorkQueue[str] = WorkQueue(env, cap_s=10.0)
        self._pending: dict[str, _Pending] = {}
        self._told: dict[str, _Told] = {}
        self._progress = asyncio.Event()

    def push(self, pod: Obj, status: Mapping[str, Any], *, finished: bool) -> None:
        uid = pod['metadata']['uid']
        before = self._pending.get(uid)
        since = before.since if before is not None else self._env.clock.monotonic()
        self._pending[uid] = _Pending(pod, status, finished or (before is not None and before.finished), since)
        if status.get('phase') == 'Pending' and not self._pending[uid].finished:
            self._queue.add_after(uid, SETTLE_S)
        else:
            self._queue.add(uid)

    def finish_unknown(self, pod: Obj) -> None:
        """A pod that has to go and of which nothing is here."""
        self.push(pod, {}, finished=True)

    def heard(self, old: Obj | None, new: Obj | None) -> None:
        """A handler for an informer of pods."""
        uid = new['metadata']['uid'] if new is not None else ''
        if old is not None and old['metadata']['uid'] != uid:
            self._told.pop(old['metadata']['uid'], None)
        told, pending = self._told.get(uid), self._pending.get(uid)
        if new is None or told is None:
            return
        if pending is not None:
            pending.heard = new
        elif _revision(new) >= told.revision and not _ended_by_others(new, told) and not _says(new, told.status):
            log.info('status was changed by somebody else', uid=uid)
            self.push(new, told.status, finished=False)

    async def run(self) -> NoReturn:
        async with asyncio.TaskGroup() as group:
            for n in range(SENDERS):
                start_restarting(group, f'status sender {n}', self._send_all, self._env)
        raise AssertionError('senders never end')

    async def _send_all(self) -> NoReturn:
        while True:
            uid = await self._queue.get()
            try:
                await self._send(uid)
            except ClientError as e:
                log.info('status not sent', uid=uid, err=f'{type(e).__name__}: {e}')
                self._queue.add_rate_limited(uid)
            else:
                self._queue.forget(uid)
            finally:
                self._queue.done(uid)

    async def _send(self, uid: str) -> None:
        item = self._pending.get(uid)
        if item is None:
            return
        meta = item.pod['metadata']
        try:
            if item.status:
                patch = {'metadata': {'uid': uid}, 'status': _without(item.status, obsolete(item.pod, item.status))}
                now = await self._client.patch(
                    PODS, meta['name'], patch, meta['namespace'], kind='strategic', subresource='status'
                )
                self._told[uid] = _Told(_revision(now), item.status)
                self._metrics.status_sent(self._env.clock.monotonic() - item.since)
            if item.finished:
                await self._client.delete(PODS, meta['name'], meta['namespace'], grace_period_s=0, uid=uid)
        except (NotFound, Conflict) as e:  # deleted, or another pod of the same name: nobody to tell
            log.debug('status has no addressee', uid=uid, err=str(e))
        except ApiError as e:
            if not 400 <= e.code < 500 or e.code == 429:
                raise
            log.error('status was refused', object=f'{meta["namespace"]}/{meta["name"]}', err=str(e))
        if self._pending.get(uid) is item:
            del self._pending[uid]
            self._progress.set()
            if item.heard is not None:
                self.heard(None, item.heard)

    async def sent(self, uids: Collection[str]) -> None:
        """Return once the API has the latest status of each of these pods."""
        while any(uid in self._pending for uid in uids):
            self._progress.clear()
            await self._progress.wait()


def _without(status: Mapping[str, Any], kinds: Collection[str]) -> Mapping[str, Any]:
    """The status as a strategic merge patch that also takes conditions of these types away."""
    if not kinds:
        return status
    return {**status, 'conditions': [*status['conditions'], *({'$patch': 'delete', 'type': k} for k in kinds)]}


def _revision(pod: Obj) -> int:
    return int(pod['metadata'].get('resourceVersion') or 0)


def _ended_by_others(pod: Obj, told: _Told) -> bool:
    """Then its worker ends it, and has the last word."""
    phase = (pod.get('status') or {}).get('phase')
    return phase in TERMINAL and told.status.get('phase') not in TERMINAL


def _says(pod: Obj, status: Mapping[str, Any]) -> bool:
    """Whether the API's pod has this status, whatever else others have added to it."""
    return not obsolete(pod, status) and _holds(pod.get('status') or {}, status)


def _holds(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(_holds(found.get(k), v) for k, v in wanted.items())
    if not isinstance(wanted, list):
        return bool(found == wanted)
    if not isinstance(found, list):
        return not wanted and found is None
    if wanted and isinstance(wanted[0], Mapping) and 'type' in wanted[0]:  # conditions
        by_type = {c['type']: c for c in found}
        return all(_holds(by_type.get(c['type']), c) for c in wanted)
    return len(found) == len(wanted) and all(map(_holds, found, wanted))
