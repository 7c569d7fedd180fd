"""The zygote: a warm, tiny interpreter that forks one shim a pod, so that none of them pays for a start of its own.

Run by path with `python -I -S` (no site packages). Requests arrive on descriptor 0, a packet each, one JSON object:
`{"directory": "…", "memory": {}}`. With each comes one end of a connection, on which its fork answers as `status`
would; it is the shim's first. At the end of the packets (the agent is gone) the zygote ends; its shims stay.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import signal
import socket
import sys
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))
sys.dont_write_bytecode = True

from knode.runtime.shim import host, mounts  # noqa: E402 — the path above has to come first
from knode.runtime.shim.client import Client, receive  # noqa: E402
from knode.runtime.shim.core import SOCKET_FILE, Shim  # noqa: E402

REQUEST_BYTES_MAX = 1 << 16
SHIM_LOG_FILE = 'shim.log'
"""Made for last words; nothing else is ever said on a shim's own streams."""


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # shims that end while we live leave no zombie
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # we end with our agent, not with its terminal
    gc.collect()
    gc.freeze()  # keep the shared pages shared
    while True:
        try:
            request, fds = receive(control, REQUEST_BYTES_MAX)
        except ConnectionError:  # the agent has left its last questions behind
            return
        if not request:
            return
        try:
            if os.fork() == 0:
                control.close()
                _answer(json.loads(request), Client(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fds[0])))
        except OSError as e:
            Client(socket.socket(fileno=os.dup(fds[0]))).send({'id': 0, 'error': f'pod sandbox: fork: {e.strerror}'})
        os.close(fds[0])


def _answer(request: dict[str, Any], agent: Client) -> None:
    """The fork's side; never returns."""
    try:
        if 'probe' in request:
            agent.send({'id': 0, 'ok': {'mounts': mounts.supported()}})
        else:
            _be_shim(request, agent)
        os._exit(0)
    except BaseException:
        with contextlib.suppress(OSError):
            os.dup2(os.open(SHIM_LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def _be_shim(request: dict[str, Any], agent: Client) -> None:
    try:
        os.setsid()
        host.prctl(host.PR_SET_CHILD_SUBREAPER, 1)
        os.chdir(request['directory'])  # the socket's path may be longer than the 108 bytes that the kernel takes
        listener = _listen()
        if request['memory']:
            _hold_in_memory(request['memory'])
    except mounts.MountError as e:
        agent.send({'id': 0, 'error': f'pod sandbox: {e}'})
    except OSError as e:
        agent.send({'id': 0, 'error': f'pod sandbox: {e.strerror}: {e.filename or request["directory"]}'})
    else:
        Shim(listener).run(agent)


def _hold_in_memory(volumes: dict[str, int]) -> None:
    try:
        mounts.hold_in_memory(volumes)
    except (mounts.MountError, OSError) as e:
        raise mounts.MountError(f'volume in memory: {e}') from e


def _listen() -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(SOCKET_FILE)
    except OSError as e:
        if e.errno != errno.EADDRINUSE:
            raise
        os.unlink(SOCKET_FILE)  # of a shim that died
        listener.bind(SOCKET_FILE)
    listener.listen(16)
    listener.setblocking(False)
    return listener


if __name__ == '__main__':
    main()
