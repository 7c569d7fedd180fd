"""Mirror pods: what the API shows of static pods. Deleting one through the API ends nothing: it comes back.

One worker over the names of pods: which static pods are here (`keep`, `drop`) against which mirrors the API holds.
Also the way of statuses to the API, since a static pod's status belongs into its mirror. Source: pkg/kubelet/pod/
mirror_client.go, kubelet.go tryReconcileMirrorPods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import structlog

from kclient.api import Client
from kclient.errors import ClientError, Conflict, NotFound
from kclient.informer import Informer
from kclient.queue import WorkQueue
from kcore.env import Env
from kcore.meta.gvk import PODS
from kcore.meta.objects import key_of, split_key
from knode.pods.statuses import Statuses
from knode.static.manifest import HASH, MIRROR, Obj, is_mirror, is_static, mirror_of

log = structlog.get_logger('knode.mirrors')

RETRY_CAP_S = 20.0


class Mirrors:
    """node: the Node object, or None while it is not known."""

    def __init__(
        self, client: Client, env: Env, informer: Informer, statuses: Statuses, node: Callable[[], Obj | None]
    ) -> None:
        self._client, self._informer, self._statuses, self._node = client, informer, statuses, node
        self._queue: WorkQueue[str] = WorkQueue(env, cap_s=RETRY_CAP_S)
        self._pods: dict[str, Obj] = {}
        self._words: dict[str, Mapping[str, Any]] = {}
        """Latest status of each static pod, by key."""
        self._settled = False
        informer.on_change(self._on_pod)

    # --- what is here

    def keep(self, pod: Obj) -> None:
        self._pods[key_of(pod)] = pod
        self._queue.add(key_of(pod))

    def drop(self, pod: Obj) -> None:
        """The static pod has ended for good: its mirror goes, unless another of its name is here already."""
        key = key_of(pod)
        if (kept := self._pods.get(key)) is not None and kept['metadata']['uid'] == pod['metadata']['uid']:
            del self._pods[key]
            self._words.pop(key, None)
            self._queue.add(key)

    def settle(self) -> None:
        """All static pods have been named by now: every other mirror is an orphan."""
        self._settled = True
        for key in self._informer.store:
            self._queue.add(key)

    def push(self, pod: Obj, status: Mapping[str, Any], *, finished: bool) -> None:
        """A `StatusSink` for all pods."""
        if not is_static(pod):
            self._statuses.push(pod, status, finished=finished)
            return
        key = key_of(pod)
        if (kept := self._pods.get(key)) is not None and kept['metadata']['uid'] == pod['metadata']['uid']:
            self._words[key] = status
            self._speak(key)

    # --- what the API has

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        for obj in (old, new):
            if obj is not None and is_mirror(obj):
                self._queue.add(key_of(obj))
        if new is not None and is_mirror(new) and (old is None or old['metadata']['uid'] != new['metadata']['uid']):
            self._speak(key_of(new))

    def _speak(self, key: str) -> None:
        mirror = self._informer.store.get(key)
        if mirror is not None and key in self._words and self._true(key, mirror):
            self._statuses.push(mirror, self._words[key], finished=False)

    def _true(self, key: str, mirror: Obj) -> bool:
        """Whether the mirror shows the pod that is here."""
        pod = self._pods.get(key)
        notes = mirror['metadata'].get('annotations') or {}
        dying = mirror['metadata'].get('deletionTimestamp')
        return pod is not None and not dying and notes.get(MIRROR) == pod['metadata']['annotations'][HASH]

    async def run(self) -> NoReturn:
        await self._informer.synced()
        while True:
            key = await self._queue.get()
            try:
                await self._reconcile(key)
            except ClientError as e:
                log.info('mirror pod not brought into line', object=key, err=f'{type(e).__name__}: {e}')
                self._queue.add_rate_limited(key)
            else:
                self._queue.forget(key)
            finally:
                self._queue.done(key)

    async def _reconcile(self, key: str) -> None:
        mirror, pod, node = self._informer.store.get(key), self._pods.get(key), self._node()
        namespace, name = split_key(key)
        if mirror is not None and not is_mirror(mirror):
            return  # a pod of the API has the name
        if mirror is not None and not self._true(key, mirror) and (pod is not None or self._settled):
            try:
                await self._client.delete(PODS, name, namespace, grace_period_s=0, uid=mirror['metadata']['uid'])
            except (NotFound, Conflict) as e:
                log.debug('mirror pod was gone', object=key, err=str(e))
            return  # the watch says when it is gone
        if mirror is None and pod is not None:
            if node is None:
                self._queue.add_rate_limited(key)
                return
            await self._client.create(PODS, mirror_of(pod, node))
