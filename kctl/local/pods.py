"""End the pods of a stopped node: their shims outlive the agent on purpose, so somebody has to say that it is over."""

from __future__ import annotations

import contextlib
from typing import Any

import psutil

from kcore.env import Env
from kctl.local.layout import Layout
from knode.pods.checkpoint import Checkpoints
from knode.runtime.process import kill_marked, kill_shim
from knode.runtime.shim import host
from knode.runtime.shim.core import TERM_GRACE_S
from knode.runtime.shim.state import STATE_FILE, latest
from knode.volumes import memory

MARGIN_S = 3.0
"""Beyond the shim's own grace, before it is killed."""


def stop_pods(layout: Layout, node: str, env: Env) -> int:
    """SIGTERM to every pod of `node`, SIGKILL to what is left. The node's agent must not run. Returns the number."""
    states = list(_states(layout, node, env))
    shims = []
    for state in states:
        with contextlib.suppress(psutil.Error):
            if host.start_ticks(state['pid']) == state['start_ticks']:
                shims.append(psutil.Process(state['pid']))
                shims[-1].terminate()
    psutil.wait_procs(shims, timeout=TERM_GRACE_S + MARGIN_S)
    for state in states:
        with contextlib.suppress(ProcessLookupError):
            kill_shim(state)
    kill_marked([c['id'] for state in states for c in state['containers']])
    memory.discard(layout.data / node)
    return len(shims)


def _states(layout: Layout, node: str, env: Env) -> list[dict[str, Any]]:
    root = Checkpoints(env, layout.data / node).root
    found = []
    for name in env.disk.listdir(root):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
            found.append(latest(env.disk.read(root / name / STATE_FILE)))
    return found
