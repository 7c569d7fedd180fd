"""Lifecycle hooks: postStart right after the start, preStop inside the grace.

Source: pkg/kubelet/lifecycle/handlers.go.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from knode.errors import NodeError, ShimError
from knode.pods.execute import capture
from knode.pods.host import Host
from knode.pods.model import Obj
from knode.probes.checks import http_get, port_number
from knode.runtime.driver import Record

if TYPE_CHECKING:
    from knode.pods.worker import PodWorker

HTTP_HOOK_TIMEOUT_S = 30.0


class HookFailed(NodeError):
    """The text is that of the container's state. It tells what the hook printed, which events must not repeat."""


class Hooks:
    def __init__(self, host: Host, worker: PodWorker) -> None:
        self._host, self._worker = host, worker

    async def run(self, container: Obj, record: Record, which: str) -> None:
        """which: postStart or preStop. Raises HookFailed."""
        hook = (container.get('lifecycle') or {}).get(which) or {}
        meta = self._worker.pod['metadata']
        where = f'for Container "{container["name"]}" in Pod "{meta["name"]}_{meta["namespace"]}({meta["uid"]})" failed'
        try:
            if 'exec' in hook:
                await self._exec(hook['exec'].get('command') or [], record, where)
            elif 'httpGet' in hook:
                get = hook['httpGet']
                host = get.get('host') or self._worker.checkpoint.address
                port = port_number(container, get['port'])
                ok, text = await http_get(get, host, port, HTTP_HOOK_TIMEOUT_S)
                if not ok:
                    raise HookFailed(f'HTTP lifecycle hook ({get.get("path") or ""}) {where} - error: {text}')
            elif 'sleep' in hook:
                await asyncio.sleep(float(hook['sleep']['seconds']))
        except (ShimError, ValueError) as e:
            raise HookFailed(f'lifecycle hook {where} - error: {e}') from e

    async def _exec(self, argv: list[str], record: Record, where: str) -> None:
        handle = self._worker.checkpoint.handle
        if handle is None:
            raise ShimError('the pod sandbox is gone')
        code, output = await capture(self._worker.driver, handle, record, argv)
        if code:
            words = ' '.join(argv)
            why = f"command '{words}' exited with {code}: {output}, message: {json.dumps(output, ensure_ascii=False)}"
            raise HookFailed(f'Exec lifecycle hook ([{words}]) {where} - error: {why}')
