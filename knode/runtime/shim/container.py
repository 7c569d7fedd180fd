"""One container as its shim sees it: a JSON-safe record, its streams, its log."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping, Sequence
from typing import Any

from knode.runtime.shim.logs import LineSplitter, LogFile

Record = dict[str, Any]
"""id, name, attempt, pid, start_ticks, created_ns, started_ns, finished_ns (0 = not yet), exit_code, signal, reason,
message, log, stopping, meta (the agent's own facts)."""

MARK = 'KUBELING_CONTAINER'
"""Environment variable that tells to which container a process belongs, wherever it ends up in the process tree."""
ATTACH_PIPE_BYTES = 1 << 20
"""Room for an attached reader; one that falls further behind is cut off, the container never waits for it."""
F_SETPIPE_SZ = 1031


class Container:
    def __init__(self, record: Record) -> None:
        self.record = record
        self.deadline: float | None = None
        """Monotonic time of the SIGKILL."""
        self.swept = bool(record['finished_ns'])
        self.tty = False
        self._log: LogFile | None = None
        self._out: dict[int, LineSplitter] = {}
        self._attached: dict[int, int] = {}  # descriptor → 0: stdout, 1: stderr
        self._order: list[int] = []
        self._stdin = -1

    @classmethod
    def create(cls, spec: Mapping[str, Any], now_ns: int) -> Container:
        record = {k: spec[k] for k in ('id', 'name', 'attempt', 'log', 'meta')}
        record |= dict.fromkeys(('pid', 'start_ticks', 'started_ns', 'finished_ns', 'exit_code', 'signal'), 0)
        return cls(record | {'created_ns': now_ns, 'reason': '', 'message': '', 'stopping': False})

    @property
    def running(self) -> bool:
        return bool(self.record['pid']) and not self.record['finished_ns']

    @property
    def lost_bytes(self) -> int:
        return self._log.lost_bytes if self._log else 0

    def marks(self, environ: bytes) -> bool:
        return f'{MARK}={self.record["id"]}\0'.encode() in environ

    def open_streams(self, spec: Mapping[str, Any]) -> tuple[list[int], bool]:
        """Descriptors for the child (the caller closes them after the fork) and whether they are a terminal."""
        self._log = LogFile(self.record['log'])
        self.tty = bool(spec.get('tty'))
        if self.tty:
            master, slave = os.openpty()
            self._order = [master]
            self._out = {master: LineSplitter(b'stdout')}
            self._stdin = os.dup(master) if spec.get('stdin') else -1
            return [slave, os.dup(slave), os.dup(slave)], True
        out, child_out = os.pipe2(os.O_CLOEXEC)
        err, child_err = os.pipe2(os.O_CLOEXEC)
        self._order = [out, err]
        self._out = {out: LineSplitter(b'stdout'), err: LineSplitter(b'stderr')}
        if spec.get('stdin'):
            child_in, self._stdin = os.pipe2(os.O_CLOEXEC)
        else:
            child_in = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return [child_in, child_out, child_err], False

    def output_fds(self) -> list[int]:
        return list(self._out)

    def output(self, fd: int, data: bytes, now_ns: int) -> None:
        """Log `data` (empty: the stream ended) and copy it to whoever is attached."""
        splitter = self._out[fd]
        record = splitter.feed(data, now_ns) if data else splitter.end(now_ns)
        if record and self._log:
            self._log.write(record)
        which = self._order.index(fd)
        for reader in [r for r, stream in self._attached.items() if stream == which] if data else ():
            try:
                complete = os.write(reader, data) == len(data)
            except OSError:  # full or gone
                complete = False
            if not complete:
                self._detach(reader)

    def end_output(self, fd: int) -> None:
        which = self._order.index(fd)
        del self._out[fd]
        os.close(fd)
        for reader in [r for r, stream in self._attached.items() if stream == which or not self._out]:
            self._detach(reader)
        if not self._out and self._log:
            self._log.close()

    def attach(self, fds: Sequence[int]) -> None:
        for stream, fd in enumerate(fds):
            os.set_blocking(fd, False)
            with contextlib.suppress(OSError):  # an unprivileged pipe budget may be spent: a smaller pipe works too
                fcntl.fcntl(fd, F_SETPIPE_SZ, ATTACH_PIPE_BYTES)
            self._attached[fd] = stream

    def _detach(self, fd: int) -> None:
        del self._attached[fd]
        os.close(fd)

    def input_fd(self) -> int:
        return self._stdin

    def close_stdin(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def remove_logs(self) -> None:
        folder, name = os.path.split(self.record['log'])
        with contextlib.suppress(FileNotFoundError):
            for entry in os.listdir(folder):
                if entry == name or entry.startswith(f'{name}.'):
                    os.unlink(os.path.join(folder, entry))
