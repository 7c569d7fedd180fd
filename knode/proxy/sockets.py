"""Sockets that the agents of one machine listen on together, and sockets to backends that keep the client's address.

All agents bind the same address with SO_REUSEPORT: the kernel gives each connection to one of them, and to the others
when one dies. Where one has to see everything (affinity, flows of datagrams), a filter of one instruction makes the
kernel give all to the first of the group and, when that dies, to another. No privilege is needed for either.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct

from knode.proxy.model import LOOPBACK, Address

BACKLOG = 1024
SO_ATTACH_REUSEPORT_CBPF, SO_DETACH_REUSEPORT_BPF = 51, 68
IP_BIND_ADDRESS_NO_PORT = 24
RETURN_ZERO = struct.pack('=HBBI', 0x06, 0, 0, 0)
"""BPF_RET | BPF_K, 0: the member of the group with index 0."""
_ON_ABORT = struct.pack('ii', 1, 0)
IN_PROGRESS = frozenset({errno.EINPROGRESS, errno.EWOULDBLOCK})


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (('length', ctypes.c_ushort), ('instructions', ctypes.c_void_p))


def listen_tcp(address: Address) -> socket.socket:
    """Raises OSError (EACCES, EADDRINUSE, EADDRNOTAVAIL)."""
    sock = _bound(socket.SOCK_STREAM, address)
    try:
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def listen_udp(address: Address) -> socket.socket:
    """All flows reach the first of those who listen. Raises OSError as `listen_tcp`."""
    sock = _bound(socket.SOCK_DGRAM, address)
    gather(sock, on=True)
    return sock


def _bound(kind: socket.SocketKind, address: Address) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def gather(sock: socket.socket, *, on: bool) -> None:
    """Whether the first member of the listening socket's group gets everything."""
    if not on:
        with contextlib.suppress(OSError):  # ENOENT: another member of the group was faster
            sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
        return
    code = ctypes.create_string_buffer(RETURN_ZERO)
    program = _Program(1, ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, bytes(program))


def toward(kind: socket.SocketKind, client: str, backend: str) -> socket.socket:
    """A socket to be connected to a backend; it has the client's address where that is one of this machine's own."""
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if client != '127.0.0.1' and client.startswith(LOOPBACK) and backend.startswith(LOOPBACK):
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((client, 0))
    except OSError:
        sock.close()
        raise
    return sock


def abort(sock: socket.socket) -> None:
    """Close with a reset instead of an orderly end."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ON_ABORT)
    sock.close()


def may_listen(address: Address) -> None:
    """Raises the OSError that listening there would. Of what others get there nothing is taken."""
    _bound(socket.SOCK_STREAM, address).close()
