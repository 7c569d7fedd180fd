"""The zygote: a warm, tiny interpreter that forks one shim a pod, so that none of them pays for a start of its own.

Run by path with `python -I -S` (no site packages). Requests arrive on descriptor 0, one JSON object a line:
`{"id": 1, "directory": "…"}`; the answer holds the shim's pid and start time. At the end of the stream (the agent
is gone) the zygote ends; its shims stay.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))
sys.dont_write_bytecode = True

from knode.runtime.shim import host, mounts  # noqa: E402 — the path above has to come first
from knode.runtime.shim.core import SOCKET_FILE, Shim  # noqa: E402

SHIM_LOG_FILE = 'shim.log'


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # shims that end while we live leave no zombie
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # we end with our agent, not with its terminal
    gc.collect()
    gc.freeze()  # keep the shared pages shared
    lines = control.makefile('rb')
    for line in lines:
        request = json.loads(line)
        try:
            if 'probe' in request:
                answer: dict[str, int | str] = {'mounts': int(mounts.supported())}
            else:
                answer = _fork_shim(request['directory'], request['memory'], control)
        except OSError as e:
            answer = {'error': f'{e.strerror}: {e.filename or request["directory"]}'}
        control.sendall(json.dumps(answer | {'id': request['id']}).encode() + b'\n')


def _fork_shim(directory: str, memory: dict[str, int], control: socket.socket) -> dict[str, int | str]:
    os.chdir(directory)  # the socket's path may be longer than the 108 bytes that the kernel takes
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET_FILE)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(SOCKET_FILE)
    listener.listen(16)
    report, shim_report = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        listener.close()
        os.close(shim_report)
        os.chdir('/')
        problem = host.read_all(report)
        if problem:
            return {'error': problem.decode(errors='replace')}
        return {'pid': pid, 'start_ticks': host.start_ticks(pid)}
    code = 1
    try:
        os.close(control.fileno())
        os.close(report)
        os.setsid()
        log = os.open(SHIM_LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        host.prctl(host.PR_SET_CHILD_SUBREAPER, 1)
        try:
            if memory:
                mounts.hold_in_memory(memory)
        except (mounts.MountError, OSError) as e:
            os.write(shim_report, f'volume in memory: {e}'.encode())
            os._exit(code)
        os.close(shim_report)
        Shim(listener).run()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


if __name__ == '__main__':
    main()
