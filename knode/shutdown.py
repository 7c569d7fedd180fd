"""Graceful node shutdown: end the pods and say so, so that they are replaced at once and not after minutes of silence.

Source: pkg/kubelet/nodeshutdown/nodeshutdown_manager_linux.go. Off by default: a stopped agent leaves its pods running.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import structlog

from knode.config import NodeConfig, shutdown_phases
from knode.node import NodeKeeper
from knode.pods.manager import PodManager
from knode.pods.model import Verdict
from knode.pods.resources import SYSTEM_CRITICAL_PRIORITY

log = structlog.get_logger('knode.shutdown')

AVOIDED_S = 4.0
"""How long the pods are kept until no new ones are sent here."""
REPORT_S = 4.0
"""Beyond the pods' grace, for the last words to the API."""
REASON = 'Terminated'
MESSAGE = 'Pod was terminated in response to imminent node shutdown.'
DISRUPTION = 'TerminationByKubelet'


def phases_of(config: NodeConfig) -> dict[int, float]:
    """Seconds by the priority from which on pods have them; empty: the pods go on without the agent."""
    if phases := shutdown_phases(config.shutdown_grace_period_by_pod_priority):
        return phases
    whole, critical = config.shutdown_grace_period_s, config.shutdown_grace_period_critical_pods_s
    if not whole:
        return {}
    return {0: whole - critical, SYSTEM_CRITICAL_PRIORITY: critical} if critical else {0: whole}


async def shut_down(keeper: NodeKeeper, manager: PodManager, phases: Mapping[int, float]) -> None:
    """phases: as of `phases_of`.

    Returns when the API knows, or AVOIDED_S + REPORT_S after the grace. Raises nothing but cancellation.
    """
    grace_s = sum(phases.values())
    log.info('node shuts down', grace_s=grace_s)
    try:
        async with asyncio.timeout(AVOIDED_S + grace_s + REPORT_S):
            await keeper.close()
            # Before the taint is there, replacements would be sent here; a controller that is just being replaced
            # itself takes a few seconds to set it. Meanwhile the pods go on serving.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AVOIDED_S):
                    await keeper.avoided.wait()
            await manager.terminate(Verdict(REASON, MESSAGE, None, DISRUPTION), phases)
    except TimeoutError:
        log.warning('node shutdown was cut short: not every pod has ended, or the API was out of reach')
