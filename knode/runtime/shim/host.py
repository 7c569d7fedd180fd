"""What the shim takes from its machine: two clocks and a handful of Linux calls.

The shim is a process of its own and too small for `kcore.env` (which brings asyncio and ssl along), so this module
is its `Env`: nothing else below `knode/runtime/shim` asks for the time.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterable

PR_SET_PDEATHSIG = 1
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)
# Looked up here, once: in a fork the first look at `_libc.name` would cost 50 µs.
_signal, _sigprocmask = _libc.signal, _libc.sigprocmask
_prctl, _signalfd = getattr(_libc, 'prctl', None), getattr(_libc, 'signalfd', None)
_SIG_DFL = None
_SIGNALFD_BYTES = 128
"""One record of a signalfd; it begins with the signal's number."""


def _signal_set(numbers: Iterable[int]) -> ctypes.Array[ctypes.c_uint64]:
    """A sigset_t, which has room for 1024 signals."""
    return (ctypes.c_uint64 * 16)(sum(1 << number - 1 for number in numbers))


HELD = tuple(map(int, (signal.SIGCHLD, signal.SIGTERM, signal.SIGIO)))
_IGNORED = tuple(map(int, (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP)))
"""By every Python, and by the zygote, from which the shim has it."""
_HELD_SET, _NO_SIGNALS = _signal_set(HELD), _signal_set(())
_SIG_BLOCK, _SIG_SETMASK = int(signal.SIG_BLOCK), int(signal.SIG_SETMASK)


def wall_ns() -> int:
    """Nanoseconds since 1970, UTC."""
    return time.time_ns()


def monotonic() -> float:
    return time.monotonic()


def rfc3339_nano(ns: int) -> str:
    """`2026-01-02T03:04:05.000000006Z`: nine digits always, as container runtimes write them."""
    seconds, rest = divmod(ns, 1_000_000_000)
    t = time.gmtime(seconds)
    return f'{t[0]:04}-{t[1]:02}-{t[2]:02}T{t[3]:02}:{t[4]:02}:{t[5]:02}.{rest:09}Z'


def hold_signals() -> int:
    """From now on the signals `HELD` wait to be read by `read_signals` from this descriptor, which never blocks.

    No handlers: `signal.signal` makes enums of all it handles, which in a fresh fork costs 50 µs a call.
    """
    assert _signalfd is not None
    _sigprocmask(_SIG_BLOCK, _HELD_SET, None)
    for number in HELD:
        _signal(number, _SIG_DFL)  # what is ignored would not wait
    return int(_signalfd(-1, _HELD_SET, os.O_CLOEXEC | os.O_NONBLOCK))


def read_signals(fd: int) -> set[int]:
    """The signals that have come since."""
    try:
        data = os.read(fd, 8 * _SIGNALFD_BYTES)
    except BlockingIOError:
        return set()
    return {int.from_bytes(data[n : n + 4], sys.byteorder) for n in range(0, len(data), _SIGNALFD_BYTES)}


def default_signals() -> None:
    """For a child that will exec: no signal is ignored or held back."""
    for number in _IGNORED:
        _signal(number, _SIG_DFL)
    _sigprocmask(_SIG_SETMASK, _NO_SIGNALS, None)


def prctl(option: int, value: int, answer: int = 0) -> bool:
    """Whether the kernel gave this answer; elsewhere than on Linux False."""
    return bool(_prctl is not None and _prctl(option, value, 0, 0, 0) == answer)


_BOUNDING = [number for number in range(64) if prctl(PR_CAPBSET_READ, number, 1)]
"""Asked once: 42 system calls."""


def bound_capabilities(kept: list[int]) -> None:
    """Drop every other capability from the bounding set: no later `exec` can bring it back."""
    for number in _BOUNDING:
        if number not in kept and not prctl(PR_CAPBSET_DROP, number):
            raise OSError(ctypes.get_errno(), f'capability {number} cannot be dropped')


def read_file(path: str) -> bytes:
    """Whole content of a small file. Raises OSError."""
    return read_all(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def read_all(fd: int) -> bytes:
    """All until the end of the stream; closes `fd`. Raises OSError."""
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b''.join(parts)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def make_file(path: str, mode: int) -> None:
    """An empty file where there is none; `mode` whatever the umask says."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode)
    os.fchmod(fd, mode)
    os.close(fd)


def replace_file(path: str, data: bytes, *, mode: int = 0o600, sync: bool) -> None:
    """Old or new content, never a mixture. `sync` also makes it survive a power cut."""
    draft = path + '.tmp'
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if mode != 0o600:
            os.fchmod(fd, mode)
        write_all(fd, data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(draft, path)


def tell_removals(directory: str) -> None:
    """SIGIO whenever an entry of `directory` goes, where the kernel tells. Other than with inotify, of which a user has
    128, any number of processes can ask.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_NOTIFY, fcntl.DN_DELETE | fcntl.DN_MULTISHOT)


def start_ticks(pid: int) -> int:
    """When `pid` started, in clock ticks since boot: with the pid it names one process for ever. 0: no such process.

    A zombie counts as gone: it runs nothing any more.
    """
    try:
        text = read_file(f'/proc/{pid}/stat')
    except OSError:
        return 0
    # The command name may hold spaces and brackets: count fields from the last bracket.
    fields = text[text.rindex(b')') + 2 :].split()
    return 0 if fields[0] in (b'Z', b'X') else int(fields[19])


def children(pid: int) -> list[int]:
    """Direct children, from the kernel's own list (CONFIG_PROC_CHILDREN). Empty when it has none."""
    try:
        return [int(p) for p in read_file(f'/proc/{pid}/task/{pid}/children').split()]
    except OSError:
        return []


def all_children(pid: int) -> list[int]:
    """Like `children`, also those that another thread than the first has started."""
    try:
        threads = os.listdir(f'/proc/{pid}/task')
    except OSError:
        return []
    found = []
    for thread in threads:
        try:
            found += [int(p) for p in read_file(f'/proc/{pid}/task/{thread}/children').split()]
        except OSError:
            continue  # the thread has ended
    return found


def environ(pid: int) -> bytes:
    """The environment `pid` was started with, `\\0`-separated; empty when it may not be read."""
    try:
        return read_file(f'/proc/{pid}/environ')
    except OSError:
        return b''
