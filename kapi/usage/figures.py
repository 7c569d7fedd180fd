"""Asks node agents for their summaries: all at once, each within a deadline, and not again for a moment.

The agents keep the rates; here is nothing that a restart could lose, and every API server gives the same figures. A
node that did not answer is left alone for a while, so that it delays one answer and not each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from kcore import tasks
from kcore.env import Clock

Obj = dict[str, Any]
Fetch = Callable[[Obj], Awaitable[Obj]]
log = structlog.get_logger('kapi.usage')

DEADLINE_S = 5.0
"""What a node agent gets to answer; figures of a slower one are missing from the answer."""
KEPT_S = 2.0
"""How long an agent's answer is good for others who ask; agents sample every 10 s."""
AVOIDED_S = 10.0
"""How long an agent that did not answer is not asked."""


class Unreachable(Exception):
    """The agent did not answer, or answered nonsense."""


@dataclass(slots=True)
class _Asked:
    task: asyncio.Task[Obj | None]
    good_until: float = float('inf')
    """Monotonic seconds; for ever while it runs."""


class Figures:
    def __init__(self, fetch: Fetch, clock: Clock) -> None:
        """fetch:  a node's summary, given the Node. Raises Unreachable."""
        self._fetch, self._clock = fetch, clock
        self._asked: dict[str, _Asked] = {}

    async def of(self, nodes: Collection[Obj]) -> Mapping[str, Obj]:
        """Node name → summary, of those that answer."""
        now = self._clock.monotonic()
        for name in [n for n, a in self._asked.items() if a.good_until < now]:
            del self._asked[name]
        asked = {n['metadata']['name']: self._ask(n) for n in nodes}
        if waiting := [a.task for a in asked.values() if not a.task.done()]:
            await asyncio.wait(waiting)
        return {name: found for name, a in asked.items() if (found := a.task.result()) is not None}

    def _ask(self, node: Obj) -> _Asked:
        name = node['metadata']['name']
        found = self._asked.get(name)
        if found is None:
            found = self._asked[name] = _Asked(tasks.start_detached(f'figures of {name}', self._answer(node)))
            found.task.add_done_callback(lambda _: self._keep(found))
        return found

    def _keep(self, asked: _Asked) -> None:
        done = asked.task
        answered = not done.cancelled() and done.exception() is None and done.result() is not None
        asked.good_until = self._clock.monotonic() + (KEPT_S if answered else AVOIDED_S)

    async def _answer(self, node: Obj) -> Obj | None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._fetch(node)
        except (TimeoutError, Unreachable) as e:
            log.info('a node agent gave no figures', node=node['metadata']['name'], err=str(e) or 'timeout')
            return None

    async def close(self) -> None:
        await tasks.stop(*(a.task for a in self._asked.values()))
