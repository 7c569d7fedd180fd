"""Container logs in the CRI format: `<RFC3339Nano> stdout F text`, rotated by size.

`F` ends a line, `P` says that the line goes on in the next record of its stream (longer than `LINE_BYTES_MAX`, or
the stream ended without a newline). Source: the CRI log format in kubernetes/design-proposals-archive,
node/kubelet-cri-logging.md.
"""

from __future__ import annotations

import os

from knode.runtime.shim import host

LINE_BYTES_MAX = 16 * 1024
FILE_BYTES_MAX = 10 * 1024 * 1024
FILES_MAX = 5


class LogFile:
    """One container's log: the live file and up to `FILES_MAX - 1` older ones, `<path>.1` being the newest of them.

    Made at the first output: one who never says a word costs neither a file nor its directories.
    """

    def __init__(self, path: str, *, file_bytes_max: int = FILE_BYTES_MAX, files_max: int = FILES_MAX) -> None:
        self.path = path
        self.lost_bytes = 0
        """Output that could not be written (disk full); the container is never blocked by it."""
        self._max = file_bytes_max
        self._files = files_max
        self._fd = -1
        self._size = 0

    def _open(self) -> None:
        os.makedirs(os.path.dirname(self.path), 0o750, exist_ok=True)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, record: bytes) -> None:
        view = memoryview(record)
        try:
            if self._size >= self._max:
                self._rotate()
            if self._fd < 0:
                self._open()
            while view:
                n = os.write(self._fd, view)
                self._size += n
                view = view[n:]
        except OSError:
            self.lost_bytes += len(view)

    def _rotate(self) -> None:
        self.close()
        for n in range(self._files - 1, 0, -1):
            older = self.path if n == 1 else f'{self.path}.{n - 1}'
            if os.path.exists(older):
                os.replace(older, f'{self.path}.{n}')
        self._size = 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class LineSplitter:
    """Bytes of one stream in, CRI records out; the unfinished line waits inside (at most `LINE_BYTES_MAX`)."""

    def __init__(self, stream: bytes) -> None:
        self._stream = stream
        self._rest = b''

    def feed(self, data: bytes, ns: int) -> bytes:
        stamp = host.rfc3339_nano(ns).encode()
        full = b'%s %s F ' % (stamp, self._stream)
        part = b'%s %s P ' % (stamp, self._stream)
        lines = (self._rest + data).split(b'\n')
        self._rest = lines.pop()
        out = []
        for line in lines:
            while len(line) > LINE_BYTES_MAX:
                out += [part, line[:LINE_BYTES_MAX], b'\n']
                line = line[LINE_BYTES_MAX:]  # noqa: PLW2901 — the remainder is the line now
            out += [full, line, b'\n']
        while len(self._rest) >= LINE_BYTES_MAX:
            out += [part, self._rest[:LINE_BYTES_MAX], b'\n']
            self._rest = self._rest[LINE_BYTES_MAX:]
        return b''.join(out)

    def end(self, ns: int) -> bytes:
        """The unfinished last line, if any."""
        rest, self._rest = self._rest, b''
        return b'%s %s P %s\n' % (host.rfc3339_nano(ns).encode(), self._stream, rest) if rest else b''
