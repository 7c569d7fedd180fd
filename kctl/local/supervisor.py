"""Keeps the components of a local cluster running: forks them from one warm process, restarts what dies.

Importing everything costs more than starting anything, so one process imports and each component is a fork of it:
seven processes start in the time of one. The supervisor therefore has neither threads nor an event loop; it sleeps in
one `select` on its signals' wake-up pipe and on the time of the next restart.

Each child leads a session of its own (a Ctrl-C at the terminal reaches the supervisor alone, which stops them in
order) and is told by the kernel when the supervisor dies, so that `kill -9` leaves no orphan.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import psutil

from kcore import process
from kcore.backoff import Backoff
from kcore.env import Env
from kctl.local.components import ENTRIES, STOP_ORDER, Component
from kctl.local.layout import Layout, Role

RESTART_FIRST_S, RESTART_CAP_S = 0.2, 10.0
STABLE_AFTER_S = 30.0
"""A component that ran this long starts its back-off anew when it dies."""
STOP_GRACE_S: Mapping[Role, float] = {'manager': 10.0, 'node': 20.0, 'api': 10.0, 'store': 10.0}
"""Between SIGTERM and SIGKILL at an orderly stop; a node agent may have to end its pods first."""
LAST_LINE_BYTES_MAX, ERROR_CHARS_MAX = 65_536, 600
"""What is looked at, and what is told, of a dead component's last words."""
LOG_BYTES_MAX = 10 * 1024 * 1024
"""A component's log is rotated to `<name>.log.1` at this size; one old file is kept."""
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Report = Callable[[str, str, str], None]
"""Called with (what happened, component, detail); what happened is started, ready, died, stopped or unrecorded."""


@dataclass(slots=True)
class Child:
    component: Component
    backoff: Backoff
    pid: int = 0
    started: float = 0.0
    restart_at: float | None = None
    readiness: int = -1
    """The read end of the pipe on which the child says that it serves."""


class LogFile:
    """Standard error of a child: a file that is rotated by size, in place, under the same descriptor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = 0
        self._reopen()

    def _reopen(self) -> None:
        if self._path.exists() and self._path.stat().st_size >= LOG_BYTES_MAX:
            os.replace(self._path, self._path.with_suffix('.log.1'))
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._left = LOG_BYTES_MAX - os.fstat(fd).st_size
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.close(fd)

    def write(self, text: str) -> int:
        # A full disk costs log lines, never the component that wanted to write one.
        with contextlib.suppress(OSError):
            self._left -= os.write(2, text.encode(errors='replace'))
            if self._left <= 0:
                self._reopen()
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return 2


class Gate:
    """A pipe that holds children back which are forked before their time; nobody may be forked from it unheld."""

    def __init__(self) -> None:
        self._closed, self._held = os.pipe2(os.O_CLOEXEC)

    def open(self) -> None:
        os.close(self._held)
        os.close(self._closed)

    def wait(self) -> None:
        """In a child. Returns once the parent opens the gate, or ends."""
        os.close(self._held)
        os.read(self._closed, 1)
        os.close(self._closed)


@dataclass(slots=True)
class Supervisor:
    layout: Layout
    components: list[Component]
    env: Env
    report: Report
    cleanup: Callable[[Component], object] = lambda component: None
    """Called for each node once its agent has stopped for good: ends the pods that outlive an agent."""
    replan: Callable[[Component], Component] = lambda component: component
    """Called before a restart: a component's flags follow from the layout, which may have changed."""
    _children: dict[str, Child] = field(default_factory=dict)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _stopping: bool = False

    def run(self) -> None:
        """Start all, keep them running, and return once a stop signal has been obeyed."""
        with self._signals() as wakeup:
            self._selector.register(wakeup, selectors.EVENT_READ)
            self._start_all()
            while not self._stopping:
                self._wait(self._pause())
                self._restart_due()
            self._stop_all()

    def _start_all(self) -> None:
        """Node agents, of which there may be many, are forked before the parts that they have no use for are imported.

        They wait until the others begin, too. An agent that is started again later is a fork of everything.
        """
        nodes = [c for c in self.components if c.role == 'node']
        others = [c for c in self.components if c.role != 'node']
        _load(nodes)
        gate = Gate()
        for component in nodes:
            self._add(component, gate)
        _load(others)
        gate.open()
        for component in others:
            self._add(component)

    def _add(self, component: Component, gate: Gate | None = None) -> None:
        child = Child(component, Backoff(RESTART_FIRST_S, RESTART_CAP_S, self.env.rng))
        self._children[component.name] = child
        self._start(child, gate)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[int]:
        def stop(number: int, frame: object) -> None:
            self._stopping = True

        wakeup, feed = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(feed, warn_on_full_buffer=False)
        before = {n: signal.signal(n, stop) for n in STOP_SIGNALS}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        try:
            yield wakeup
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(wakeup)
            os.close(feed)

    def _pause(self) -> float | None:
        due = [c.restart_at for c in self._children.values() if c.restart_at is not None]
        return max(0.0, min(due) - self.env.clock.monotonic()) if due else None

    def _wait(self, timeout: float | None) -> None:
        """Until a signal, a child's readiness, or `timeout` seconds."""
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, Child):
                self._hear(key.data)
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, 512)
        self._reap()

    def _hear(self, child: Child) -> None:
        said = os.read(child.readiness, 16)
        self._unlisten(child)
        if said:
            self.report('ready', child.component.name, '')

    def _unlisten(self, child: Child) -> None:
        if child.readiness >= 0:
            self._selector.unregister(child.readiness)
            os.close(child.readiness)
            child.readiness = -1

    def _start(self, child: Child, gate: Gate | None = None) -> None:
        child.readiness, ready = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os._exit(_become(child.component, self.layout, ready, parent, gate))
        os.close(ready)
        self._selector.register(child.readiness, selectors.EVENT_READ, child)
        child.pid, child.started, child.restart_at = pid, self.env.clock.monotonic(), None
        self._remember(child)
        self.report('started', child.component.name, str(pid))

    def _remember(self, child: Child) -> None:
        """So that another `kctl` can tell this very process from a later one with the same number."""
        identity = {'pid': child.pid, 'created': psutil.Process(child.pid).create_time()}
        try:
            self.env.disk.replace(self.layout.pid_file(child.component.name), orjson.dumps(identity))
        except OSError as e:  # a full disk: the component matters more than what `status` shows
            self.report('unrecorded', child.component.name, str(e))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children.values():
                if child.pid == pid:
                    self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, code: int) -> None:
        now = self.env.clock.monotonic()
        child.pid = 0
        self._unlisten(child)
        self.env.disk.remove(self.layout.pid_file(child.component.name))
        if self._stopping:
            self.report('stopped', child.component.name, '')
            return
        if now - child.started > STABLE_AFTER_S:
            child.backoff.reset()
        pause = child.backoff.next()
        child.restart_at = now + pause
        why = (
            f'signal {-code}' if code < 0 else last_error(self.layout.log(child.component.name)) or f'exit code {code}'
        )
        self.report('died', child.component.name, f'{why} (starts again in {pause:.1f} s)')

    def _restart_due(self) -> None:
        now = self.env.clock.monotonic()
        for child in self._children.values():
            if not self._stopping and child.restart_at is not None and child.restart_at <= now:
                child.component = self.replan(child.component)
                self._start(child)

    def _stop_all(self) -> None:
        for role in STOP_ORDER:
            group = [c for c in self._children.values() if c.component.role == role]
            self._signal(group, signal.SIGTERM)
            deadline = self.env.clock.monotonic() + STOP_GRACE_S[role]
            while any(c.pid for c in group) and (left := deadline - self.env.clock.monotonic()) > 0:
                self._wait(left)
            self._signal(group, signal.SIGKILL)
            while any(c.pid for c in group):
                self._wait(None)
            for child in group:
                if role == 'node':
                    self.cleanup(child.component)

    def _signal(self, children: list[Child], number: signal.Signals) -> None:
        for child in children:
            if child.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, number)


def last_error(log: Path) -> str:
    """The `err` of the last line of a log, cut to what fits into a sentence; empty when there is none."""
    with log.open('rb') as f:
        f.seek(max(0, f.seek(0, os.SEEK_END) - LAST_LINE_BYTES_MAX))
        lines = f.read().splitlines()
    try:
        return str(orjson.loads(lines[-1])['err'])[:ERROR_CHARS_MAX]
    except (IndexError, KeyError, ValueError):
        return lines[-1].decode(errors='replace')[:ERROR_CHARS_MAX] if lines else ''


def _load(components: Iterable[Component]) -> None:
    """Import what they need; what is there then is shared with those forked from now on."""
    for role in dict.fromkeys(c.role for c in components):
        ENTRIES[role].load()
    gc.collect()
    gc.freeze()  # keeps the collector from copying what all children share


def _become(component: Component, layout: Layout, ready: int, parent: int, gate: Gate | None) -> int:
    """In the forked child: leave the supervisor behind and be the component. Returns the exit code."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (*STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    _prctl(PR_SET_NAME, ctypes.c_char_p(component.name.encode()))  # what `top` and `ps -o comm` show
    die_with_parent(parent)
    if gate is not None:
        gate.wait()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    log = LogFile(layout.log(component.name))
    sys.stdout = sys.stderr = log

    def say() -> None:
        os.write(ready, b'ready')
        os.close(ready)

    try:
        run, config = ENTRIES[component.role].load()
        settings = config.load(list(component.flags), prog=component.name)
        return process.main(component.name, run, settings, ready=say)
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM when the parent dies (Linux; elsewhere `down` finds the orphan by its pid file)."""
    _prctl(PR_SET_PDEATHSIG, ctypes.c_int(signal.SIGTERM))
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)


def _prctl(option: int, argument: ctypes.c_char_p | ctypes.c_int) -> None:
    """Linux has it; where there is none, nothing that matters is lost."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, argument)


def running(layout: Layout, component: str, env: Env) -> psutil.Process | None:
    """The live process that a pid file names, told from a stranger with the same number by its start time."""
    try:
        identity = orjson.loads(env.disk.read(layout.pid_file(component)))
        found = psutil.Process(identity['pid'])
        alive = abs(found.create_time() - identity['created']) < 1.0 and found.status() != psutil.STATUS_ZOMBIE
    except (FileNotFoundError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    return found if alive else None
