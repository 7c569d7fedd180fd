"""All ambient input of a component: clock, chance, disk, network, processes.

A component takes one `Env` and asks nothing else for the time, a random number, an id, a file, a socket or a
child process. `Env.real()` is this machine; `Env.sim(seed)` is virtual time, an in-memory disk and an in-memory
network whose faults are inputs (see `kcore.sim`). There is no third way, and `tests/test_tidy.py` keeps it so.

Blocking calls are plain methods of `Disk`; a caller on the event loop that must not wait for the device writes
`await env.disk.offload(file.sync)`. Under simulation `offload` runs inline after a virtual delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

T = TypeVar('T')
ProtocolFactory = Callable[[], asyncio.Protocol]
FileOrFd = int | IO[bytes] | None


class Clock(Protocol):
    """Two clocks: one for durations, one for people."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back, never jumps."""

    def wall(self) -> datetime:
        """Aware UTC; may jump."""


class AppendFile(Protocol):
    """A file that grows at its end. Not safe for concurrent calls."""

    @property
    def size(self) -> int: ...

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end; durable only after `sync`. Raises OSError (ENOSPC, EIO)."""

    def sync(self) -> None:
        """fdatasync. An OSError here is fatal for the writer: the kernel may have dropped the dirty pages."""

    def truncate(self, size: int) -> None: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """Blocking file operations; every one is durable on return except `AppendFile.append`."""

    def read(self, path: Path) -> bytes:
        """Whole content. Raises FileNotFoundError."""

    def exists(self, path: Path) -> bool: ...

    def listdir(self, path: Path) -> list[str]:
        """Sorted names; empty when `path` does not exist."""

    def mkdir(self, path: Path, mode: int = 0o700) -> None:
        """With parents; an existing directory is fine."""

    def replace(self, path: Path, data: bytes, mode: int = 0o600, *, sync: bool = True) -> None:
        """Atomic: after a crash the file holds the old or the new content, never a mixture.

        sync:  False for what need not outlive a power cut, which then may leave anything.
        """

    def rename(self, old: Path, new: Path) -> None: ...

    def remove(self, path: Path) -> None:
        """Delete a file; a missing one is fine."""

    def open_append(self, path: Path, *, preallocate: int = 0, mode: int = 0o600) -> AppendFile:
        """Open or create. `preallocate` bytes are reserved without changing the file's size.

        A file with a reservation is quick to sync: zeros are written ahead of the data, so that most syncs change only
        content, which needs no entry in the file system's journal. After a crash such a file may end in zeros, which
        `size` then counts; `truncate` and `close` cut them off.
        """

    async def offload(self, call: Callable[..., T], *args: Any) -> T:
        """Run a blocking call off the event loop."""

    async def sync_soon(self, call: Callable[..., T], *args: Any) -> T:
        """The same for a short write with its sync. A disk that has lately been quick is asked at once: handing a call
        of 0.2 ms to a thread and back costs as much again, and far more on a busy machine.
        """

    @property
    def quick(self) -> bool:
        """Whether `sync_soon` would ask it at once; then `sync_now` may be called."""

    def sync_now(self, call: Callable[..., T], *args: Any) -> T:
        """`sync_soon` of a quick disk, for callers that are no coroutine."""


DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: OSError) -> bool:
    """Whether it says that there is no room, which is no fault of the disk's."""
    return error.errno in DISK_FULL


class Server(Protocol):
    """A listening socket."""

    @property
    def address(self) -> tuple[str, int]: ...

    def close(self) -> None: ...


class Network(Protocol):
    """TCP as asyncio protocols: no streams, so that a busy connection costs one callback a segment."""

    async def listen(
        self, factory: ProtocolFactory, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> Server:
        """Raises OSError (EADDRINUSE) with the address in the text."""

    async def connect(
        self, factory: ProtocolFactory, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> tuple[asyncio.Transport, asyncio.Protocol]: ...


class Process(Protocol):
    """A child process."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """Exit code, or minus the signal's number."""

    def signal(self, number: int) -> None: ...


class Processes(Protocol):
    """Starts children."""

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: FileOrFd = None,
        stdout: FileOrFd = None,
        stderr: FileOrFd = None,
        pass_fds: Sequence[int] = (),
        new_session: bool = False,
    ) -> Process:
        """Raises FileNotFoundError, PermissionError. `None` streams are /dev/null."""


@dataclass(frozen=True, slots=True)
class Env:
    """What a component may know of the world outside it."""

    clock: Clock
    rng: random.Random
    disk: Disk
    net: Network
    processes: Processes
    new_uid: Callable[[], str]
    """A fresh RFC 4122 identifier in its usual text form."""

    @staticmethod
    def real(seed: int | None = None) -> Env:
        """This machine. `seed` fixes only `rng` (jitter, name suffixes), never identifiers."""
        # Identifiers and jitter need no secrecy; keys and tokens come from `cryptography` and `secrets`.
        return Env(RealClock(), random.Random(seed), RealDisk(), RealNetwork(), RealProcesses(), _uuid4)  # noqa: S311

    @staticmethod
    def sim(seed: int) -> Env:
        """Virtual time and no real resource; see `kcore.sim` for faults. Needs no running loop."""
        from kcore.sim import sim_env  # noqa: PLC0415 — the simulator is no part of a production start

        return sim_env(seed)


def _uuid4() -> str:
    # Half the time of `str(uuid.uuid4())`: every request has one.
    text = os.urandom(16).hex()
    variant = '89ab'[int(text[16], 16) & 3]
    return f'{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}'


class RealClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> datetime:
        return datetime.now(UTC)


class RealAppendFile:
    def __init__(self, path: Path, preallocate: int, mode: int) -> None:
        at_end = 0 if preallocate else os.O_APPEND  # which would send the zeros written ahead behind each other
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | at_end, mode)
        self._size = self._zeroed = os.fstat(self._fd).st_size
        self._reserved = preallocate
        if preallocate > self._size and hasattr(os, 'posix_fallocate'):
            try:
                _reserve(self._fd, preallocate)
            except OSError:
                os.close(self._fd)
                raise

    @property
    def size(self) -> int:
        return self._size

    def append(self, data: bytes) -> None:
        if not self._reserved:
            view = memoryview(data)
            while view:
                written = os.write(self._fd, view)
                self._size += written
                view = view[written:]
            return
        end = self._size + len(data)
        if self._zeroed < end <= self._reserved:
            ahead = min(end + AHEAD_BYTES, self._reserved)
            try:
                self._put(data + bytes(ahead - end))
            except OSError as e:
                if not is_full(e):
                    raise
                self._reserved = end  # no reservation here, and no room: what is written must do without
            else:
                self._size, self._zeroed = end, ahead
                return
        self._put(data)
        self._size = end

    def _put(self, data: bytes) -> None:
        view, at = memoryview(data), self._size
        while view:
            written = os.pwrite(self._fd, view, at)
            at += written
            view = view[written:]

    def sync(self) -> None:
        _datasync(self._fd)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        os.fsync(self._fd)
        self._size = self._zeroed = size

    def close(self) -> None:
        if self._zeroed > self._size:
            os.ftruncate(self._fd, self._size)
        os.close(self._fd)


def _reserve(fd: int, length: int) -> None:
    """Reserve blocks and keep the file's size (FALLOC_FL_KEEP_SIZE); best effort but for a full disk."""
    import ctypes  # noqa: PLC0415 — only the log's segments reserve space

    keep_size = 1
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, 'fallocate'):
        return
    call = libc.fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]
    if call(fd, keep_size, 0, length) != 0 and ctypes.get_errno() == errno.ENOSPC:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


AHEAD_BYTES = 128 * 1024
"""Zeros written at a time ahead of the data of a file with a reservation."""
_datasync: Callable[[int], None] = getattr(os, 'fdatasync', os.fsync)
QUICK_S = 0.005
"""Longest time of a `sync_soon` on a quick disk, but for what the thread spent waiting for a processor."""
SLOW_S = 0.025
"""One that takes longer than this shows a slow disk by itself. Between the two it may have been the processor that was
busy, not the disk, where nobody counts that or a thread waited for the interpreter's lock."""
QUICK_CALLS = 64
"""So many quick calls make a disk a quick one, after its start and after one that took longer than SLOW_S."""
SLOW_CALLS = 8
"""So many quick calls make up for one that took longer than QUICK_S; on a quick disk one of those may stand open."""


class RealDisk:
    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._doubt = QUICK_CALLS + SLOW_CALLS
        """Falls with each quick call and rises with each that was not; up to SLOW_CALLS it is a quick disk."""

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def exists(self, path: Path) -> bool:
        return path.exists()

    def listdir(self, path: Path) -> list[str]:
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def mkdir(self, path: Path, mode: int = 0o700) -> None:
        if path.is_dir():
            return
        if path.parent != path:
            self.mkdir(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode)
            _sync_directory(path.parent)

    def replace(self, path: Path, data: bytes, mode: int = 0o600, *, sync: bool = True) -> None:
        draft = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if sync:
                os.fsync(fd)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        os.replace(draft, path)
        if sync:
            _sync_directory(path.parent)

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)
        _sync_directory(new.parent)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def open_append(self, path: Path, *, preallocate: int = 0, mode: int = 0o600) -> RealAppendFile:
        fresh = not path.exists()
        file = RealAppendFile(path, preallocate, mode)
        if fresh:
            _sync_directory(path.parent)
        return file

    async def offload(self, call: Callable[..., T], *args: Any) -> T:
        if self._threads is None:  # made late: a thread does not survive the launcher's fork
            self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix='disk')
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    async def sync_soon(self, call: Callable[..., T], *args: Any) -> T:
        if self.quick:
            return self.sync_now(call, *args)
        return await self.offload(self.sync_now, call, *args)

    @property
    def quick(self) -> bool:
        return self._doubt <= SLOW_CALLS

    def sync_now(self, call: Callable[..., T], *args: Any) -> T:
        waited, began = _waited_s(), time.perf_counter()
        try:
            return call(*args)
        finally:
            took = time.perf_counter() - began
            if took >= QUICK_S:
                took -= _waited_s() - waited  # that was the processor's fault
            if took < QUICK_S:
                self._doubt = max(0, self._doubt - 1)
            else:
                worst = QUICK_CALLS + SLOW_CALLS
                self._doubt = worst if took > SLOW_S else min(worst, self._doubt + SLOW_CALLS)


_this_thread = threading.local()


def _waited_s() -> float:
    """How long this thread was ready to run and got no processor, ever; 0 where nobody counts it (Linux does)."""
    try:
        fd: int = _this_thread.schedstat
    except AttributeError:
        try:
            fd = os.open('/proc/thread-self/schedstat', os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            fd = -1
        _this_thread.schedstat = fd
    return int(os.pread(fd, 64, 0).split()[1]) / 1e9 if fd >= 0 else 0.0


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class RealServer:
    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self._address: tuple[str, int] = server.sockets[0].getsockname()[:2]

    @property
    def address(self) -> tuple[str, int]:
        return self._address

    def close(self) -> None:
        self._server.close()


class RealNetwork:
    async def listen(
        self, factory: ProtocolFactory, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> RealServer:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(factory, host, port, ssl=tls, reuse_address=True, backlog=1024)
        return RealServer(server)

    async def connect(
        self, factory: ProtocolFactory, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        loop = asyncio.get_running_loop()
        name = host if tls is not None else None
        transport, protocol = await loop.create_connection(factory, host, port, ssl=tls, server_hostname=name)
        raw = transport.get_extra_info('socket')
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return transport, protocol


class RealProcess:
    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    @property
    def pid(self) -> int:
        return self._child.pid

    async def wait(self) -> int:
        return await self._child.wait()

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(signal.Signals(number))


class RealProcesses:
    async def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: FileOrFd = None,
        stdout: FileOrFd = None,
        stderr: FileOrFd = None,
        pass_fds: Sequence[int] = (),
        new_session: bool = False,
    ) -> RealProcess:
        child = await asyncio.create_subprocess_exec(
            *argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=subprocess.DEVNULL if stderr is None else stderr,
            pass_fds=tuple(pass_fds),
            start_new_session=new_session,
        )
        return RealProcess(child)
