"""One connection to the shim: lines of JSON both ways, descriptors beside them (SCM_RIGHTS)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import Any

REQUEST_BYTES_MAX = 16 * 1024 * 1024
"""One request (a container's environment included); a longer one breaks the connection."""
RECEIVE_BYTES = 1 << 15
"""At once: all of a usual request; much more would be mapped afresh for every read."""
BACKLOG_BYTES_MAX = 4 * 1024 * 1024
"""Unread answers; a client that falls further behind is disconnected and reads the state again when it returns."""


_FDS_SPACE = socket.CMSG_SPACE(8 * 4)


def receive(sock: socket.socket, most_bytes: int) -> tuple[bytes, list[int]]:
    """What came, and the descriptors with it, close-on-exec: `socket.recv_fds` drops the flag that makes them so.

    Raises OSError.
    """
    data, beside, _, _ = sock.recvmsg(most_bytes, _FDS_SPACE, socket.MSG_CMSG_CLOEXEC)
    return data, [fd for _, _, fds in beside for fd in memoryview(fds).cast('i')]


class Client:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)
        self.fd = sock.fileno()
        self.broken = False
        self.send_fd_next = -1
        """A descriptor to go with the next answer."""
        self.on_backlog: Callable[[bool], object] = lambda _: None
        self._in = bytearray()
        self._out = bytearray()
        self._fds: list[int] = []

    def receive(self) -> list[tuple[dict[str, Any], list[int]]]:
        """Complete requests with the descriptors that came with each; sets `broken` at the end of the stream."""
        try:
            data, fds = receive(self._sock, RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data, fds = b'', []
        self._fds += fds
        self._in += data
        if not data or len(self._in) > REQUEST_BYTES_MAX:
            self.broken = True
        requests: list[tuple[dict[str, Any], list[int]]] = []
        if b'\n' not in data:
            return requests
        *lines, rest = self._in.split(b'\n')
        self._in = bytearray(rest)
        for line in lines:
            try:
                request = json.loads(line)
            except ValueError:
                self.broken = True
                break
            requests.append((request, self._fds))
            self._fds = []
        return requests

    def send(self, message: dict[str, Any]) -> None:
        if self.broken:
            return
        data = json.dumps(message).encode() + b'\n'
        if self.send_fd_next >= 0 and not self._out:
            fd, self.send_fd_next = self.send_fd_next, -1
            try:
                sent = socket.send_fds(self._sock, [data], [fd])
            except OSError:
                self.broken = True
                return
            data = data[sent:]
        self._out += data
        self.flush()
        if len(self._out) > BACKLOG_BYTES_MAX:
            self.broken = True

    def flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self.broken = True
        self.on_backlog(bool(self._out))

    def flush_blocking(self) -> None:
        """Last words before the shim ends; a client that does not read for a second loses them."""
        try:
            self._sock.settimeout(1.0)
            self._sock.sendall(self._out)
        except OSError:
            self.broken = True

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._sock.close()
