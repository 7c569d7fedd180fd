"""Sends pod statuses to the API: the latest one of each pod, in order, until the API has it.

A worker never waits for the API; an outage of any length costs one pending status a pod. A finished pod's last
status is followed by its deletion with grace 0 and its uid as precondition.
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
from knode.pods.model import Obj
from knode.pods.status import obsolete

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


class Statuses:
    def __init__(self, client: Client, env: Env) -> None:
        self._client, self._env = client, env
        self._queue: WorkQueue[str] = WorkQueue(env, cap_s=10.0)
        self._pending: dict[str, _Pending] = {}
        self._progress = asyncio.Event()

    def push(self, pod: Obj, status: Mapping[str, Any], *, finished: bool) -> None:
        uid = pod['metadata']['uid']
        before = self._pending.get(uid)
        self._pending[uid] = _Pending(pod, status, finished or (before is not None and before.finished))
        if status.get('phase') == 'Pending' and not self._pending[uid].finished:
            self._queue.add_after(uid, SETTLE_S)
        else:
            self._queue.add(uid)

    def finish_unknown(self, pod: Obj) -> None:
        """A pod that has to go and of which nothing is here."""
        self.push(pod, {}, finished=True)

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
                await self._client.patch(
                    PODS, meta['name'], patch, meta['namespace'], kind='strategic', subresource='status'
                )
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
