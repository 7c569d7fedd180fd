"""The shim's loop: children, their output, their deadlines, and the agents that ask.

Theory: one thread, one `poll`. Signals arrive through a descriptor; every child is reaped, also orphans of
containers, because the shim is a *child subreaper*: nothing that a container starts can get away from it. When a
container's first process ends, what is left of it is killed, as the end of a pid namespace would. Containers carry
PDEATHSIG, so they do not survive the shim. Each change of a record is written to the book (`state`) before anybody is
told: an agent that was away reads exit codes from there. A shim whose directory is removed ends with all it runs:
nobody could find it any more.
Protocol: one JSON object a line over `shim.sock`; requests carry `id`, answers repeat it, events carry `event`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import Any

from knode.runtime.shim import host
from knode.runtime.shim.child import NOT_STARTED, StartError, spawn
from knode.runtime.shim.client import Client
from knode.runtime.shim.container import Container, Record
from knode.runtime.shim.state import STATE_FILE, Book, State, latest

CLIENTS_MAX = 64
"""Connections at once; one more is closed at once (each exec session holds one)."""
KEEP_ATTEMPTS = 2
"""Records and logs kept per container name: the current attempt and the one before (`logs --previous`)."""
TERM_GRACE_S = 5.0
"""What the containers get when the shim itself is asked to end by SIGTERM."""

SAVE_AGAIN_S = 1.0
"""Pause before records that could not be written are tried again: a disk that is full ends no container."""

SOCKET_FILE = 'shim.sock'


class BadRequest(Exception):
    """The agent asked for something impossible; the text goes back to it."""


class Shim:
    """One pod's parent process; its working directory is the pod's directory."""

    def __init__(self, listener: socket.socket) -> None:
        self.pid = os.getpid()
        self._ticks = host.start_ticks(self.pid)
        self._listener = listener
        self._book = Book()
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._clients: dict[int, Client] = {}
        self._containers: dict[str, Container] = {}
        self._sessions: dict[int, tuple[Client, int, Container]] = {}  # exec: pid → who asked, request id, beside whom
        self._closing = self._unsaved = self._homeless = False
        self._adopt_state()

    # --- start and end

    def run(self, agent: Client) -> None:
        """agent: who had the shim made, and gets its state unasked as the answer to question 0."""
        signals = host.hold_signals()
        self._watch(signals, select.POLLIN, lambda _: self._on_signal(signals))
        self._watch(self._listener.fileno(), select.POLLIN, lambda _: self._on_connect())
        self._save(sync=False)
        agent.send({'id': 0, 'ok': self._state()})
        self._take(agent)
        host.tell_removals('.')
        self._end_without_directory()
        while not (self._closing and self._is_empty()):
            for fd, events in self._poll.poll(self._timeout_ms()):
                if fd in self._handlers:  # an earlier handler of this round may have closed it
                    self._handlers[fd](events)
            self._kill_overdue()
            if self._unsaved:
                self._save(sync=False)
        self._save(sync=True)
        for client in list(self._clients.values()):
            client.flush_blocking()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET_FILE)

    def _end_without_directory(self) -> None:
        if not os.path.exists(SOCKET_FILE):
            self._homeless = True
            self._close(0.0)

    def _adopt_state(self) -> None:
        """Records of a shim that died: whatever it ran died with it."""
        if not os.access(STATE_FILE, os.R_OK):  # as nearly always; an exception in a fresh fork costs 50 µs
            return
        try:
            old = latest(host.read_file(STATE_FILE))
        except (OSError, ValueError):
            return
        for record in old['containers']:
            if not record['finished_ns']:
                record.update(
                    finished_ns=host.wall_ns(), exit_code=137, signal=9, reason='Error', message='pod sandbox was lost'
                )
            self._containers[record['id']] = Container(record)

    def _is_empty(self) -> bool:
        return not host.children(self.pid) and not any(c.running for c in self._containers.values())

    def _state(self) -> State:
        return {
            'pid': self.pid,
            'start_ticks': self._ticks,
            'containers': [c.record for c in self._containers.values()],
        }

    def _save(self, *, sync: bool) -> None:
        if self._homeless:  # whoever is removing the directory must find it empty in the end
            return
        try:
            self._book.write({'version': 1, **self._state()}, sync=sync)
            self._unsaved = False
        except OSError:  # the disk is full
            self._unsaved = True

    def _watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, events)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    # --- children

    def _on_signal(self, fd: int) -> None:
        numbers = host.read_signals(fd)
        if signal.SIGTERM in numbers:
            self._close(TERM_GRACE_S)
        if signal.SIGIO in numbers:
            self._end_without_directory()
        if signal.SIGCHLD in numbers:
            self._reap()
            self._sweep()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._reaped(pid, os.waitstatus_to_exitcode(status))

    def _reaped(self, pid: int, code: int) -> None:
        session = self._sessions.pop(pid, None)
        if session is not None:
            client, request, _ = session
            client.send({'event': 'exec-exit', 'request': request, 'exit_code': code if code >= 0 else 128 - code})
        for c in self._containers.values():
            if c.running and c.record['pid'] == pid:
                self._finish(c, code)
                return

    def _finish(self, c: Container, code: int) -> None:
        for fd in c.output_fds():
            self._read_output(c, fd, drain=True)
        c.record.update(
            finished_ns=host.wall_ns(),
            exit_code=code if code >= 0 else 128 - code,
            signal=-code if code < 0 else 0,
            reason='Completed' if code == 0 else 'Error',
        )
        c.deadline = None
        c.close_stdin()
        self._save(sync=True)
        self._tell(c.record)

    def _sweep(self) -> None:
        """Kill what ended containers left behind; their orphans have become our children."""
        ours = {c.record['pid'] for c in self._containers.values() if c.running} | set(self._sessions)
        alive = [c for c in self._containers.values() if c.running]
        for c in self._containers.values():
            if not c.running and not c.swept:
                c.swept = True
                for pid in (c.record['pid'], *(p for p, (_, _, beside) in self._sessions.items() if beside is c)):
                    _kill_group(pid, signal.SIGKILL)
        for pid in host.children(self.pid):
            if pid in ours:
                if self._closing and pid in self._sessions:
                    _kill_group(pid, signal.SIGKILL)
                continue
            # Without a mark it cannot be told whose it is: it lives as long as any container does.
            mark = host.environ(pid)
            if not alive or any(c.marks(mark) for c in self._containers.values() if not c.running):
                _kill(pid, signal.SIGKILL)

    # --- deadlines

    def _timeout_ms(self) -> float | None:
        deadlines = [c.deadline for c in self._containers.values() if c.deadline is not None]
        if not deadlines:
            # While closing, orphans of orphans may still be on their way to us: look again soon.
            return 50 if self._closing else SAVE_AGAIN_S * 1000 if self._unsaved else None
        return max(0.0, min(deadlines) - host.monotonic()) * 1000 + 1

    def _kill_overdue(self) -> None:
        if self._closing:
            self._sweep()
        now = host.monotonic()
        for c in self._containers.values():
            if c.deadline is not None and c.deadline <= now:
                c.deadline = None
                if c.running:
                    _kill_group(c.record['pid'], signal.SIGKILL)
                    _kill(c.record['pid'], signal.SIGKILL)

    def _stop(self, c: Container, grace_s: float) -> None:
        if not c.running:
            return
        if not c.record['stopping']:
            c.record['stopping'] = True
            self._save(sync=False)
            self._tell(c.record)
            _kill_group(c.record['pid'], int(c.record['meta'].get('stop_signal') or signal.SIGTERM))
        deadline = host.monotonic() + grace_s
        c.deadline = deadline if c.deadline is None else min(c.deadline, deadline)

    def _close(self, grace_s: float) -> None:
        self._closing = True
        for c in self._containers.values():
            self._stop(c, grace_s)

    # --- output

    def _on_output(self, c: Container, fd: int, events: int) -> None:
        self._read_output(c, fd, drain=False)

    def _read_output(self, c: Container, fd: int, *, drain: bool) -> None:
        """One read, or all there is; at the end of the stream the descriptor goes."""
        lost = c.lost_bytes
        while True:
            try:
                data = os.read(fd, 1 << 16)
            except BlockingIOError:
                break
            except OSError:  # EIO: a terminal whose last process is gone
                data = b''
            c.output(fd, data, host.wall_ns())
            if not data:
                self._unwatch(fd)
                c.end_output(fd)
                break
            if not drain:
                break
        if c.lost_bytes and not lost:
            c.record['message'] = 'log output was lost: the disk is full or failing'
            self._tell(c.record)

    # --- agents

    def _on_connect(self) -> None:
        sock, _ = self._listener.accept()
        if len(self._clients) >= CLIENTS_MAX:
            sock.close()
            return
        self._take(Client(sock))

    def _take(self, client: Client) -> None:
        self._clients[client.fd] = client
        self._watch(client.fd, select.POLLIN, lambda events: self._on_client(client, events))
        client.on_backlog = lambda waiting: self._poll.modify(
            client.fd, select.POLLIN | (select.POLLOUT if waiting else 0)
        )

    def _on_client(self, client: Client, events: int) -> None:
        if events & select.POLLOUT:
            client.flush()
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            for request, fds in client.receive():
                self._answer(client, request, fds)
        if client.broken:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        self._unwatch(client.fd)
        self._clients.pop(client.fd, None)
        client.close()
        for pid, (owner, _, _) in list(self._sessions.items()):
            if owner is client:  # nobody waits for it any more
                _kill_group(pid, signal.SIGKILL)

    def _tell(self, record: Record, *, but: Client | None = None) -> None:
        for client in [c for c in self._clients.values() if c is not but]:
            client.send({'event': 'container', 'record': record})
            if client.broken:
                self._drop(client)

    def _answer(self, client: Client, request: dict[str, Any], fds: list[int]) -> None:
        try:
            call = getattr(self, f'op_{request["op"]}', None)
            if call is None:
                raise BadRequest(f'unknown operation {request["op"]!r}')
            result = call(client, request, fds)
            client.send({'id': request['id'], 'ok': result})
        except (BadRequest, StartError) as e:
            client.send({'id': request['id'], 'error': str(e)})
        except Exception as e:  # the shim must outlive any single mistake
            client.send({'id': request['id'], 'error': f'{type(e).__name__}: {e}'})
        finally:
            for fd in fds:
                os.close(fd)

    def _container(self, request: dict[str, Any]) -> Container:
        c = self._containers.get(request['container'])
        if c is None:
            raise BadRequest(f'container {request["container"]} not found')
        return c

    # --- operations

    def op_status(self, client: Client, request: dict[str, Any], fds: list[int]) -> State:
        return self._state()

    def op_start(self, client: Client, request: dict[str, Any], fds: list[int]) -> Record:
        """Start one container; a failure to start is a finished record, not an error."""
        if self._closing:
            raise BadRequest('the pod is closing')
        spec = request['spec']
        if spec['id'] in self._containers:  # a repeated request after a lost answer
            return self._containers[spec['id']].record
        self._forget_old(spec['name'])
        c = Container.create(spec, host.wall_ns())
        self._containers[c.record['id']] = c
        stdio, tty = c.open_streams(spec)
        try:
            pid = spawn(spec, stdio, tty=tty)
            c.record.update(pid=pid, start_ticks=host.start_ticks(pid), started_ns=host.wall_ns())
        except StartError as e:
            now = host.wall_ns()
            c.record.update(finished_ns=now, exit_code=NOT_STARTED, reason='StartError', message=str(e))
        finally:
            for fd in stdio:
                os.close(fd)
        for fd in c.output_fds():
            os.set_blocking(fd, False)
            self._watch(fd, select.POLLIN, lambda events, fd=fd: self._on_output(c, fd, events))  # type: ignore[misc]
        self._save(sync=False)
        self._tell(c.record, but=client)  # who has the answer
        return c.record

    def _forget_old(self, name: str) -> None:
        old = [c for c in self._containers.values() if c.record['name'] == name and not c.running]
        for c in sorted(old, key=lambda c: int(c.record['attempt']))[: -(KEEP_ATTEMPTS - 1)]:
            for fd in c.output_fds():
                self._unwatch(fd)
                c.end_output(fd)
            c.remove_logs()
            del self._containers[c.record['id']]

    def op_stop(self, client: Client, request: dict[str, Any], fds: list[int]) -> None:
        self._stop(self._container(request), float(request['grace_s']))

    def op_signal(self, client: Client, request: dict[str, Any], fds: list[int]) -> None:
        c = self._container(request)
        if c.running:
            _kill_group(c.record['pid'], int(request['signal']))

    def op_annotate(self, client: Client, request: dict[str, Any], fds: list[int]) -> Record:
        """Merge facts of the agent's into a record, so that they outlive the agent (a probe's verdict, a hook's)."""
        c = self._container(request)
        c.record['meta'].update(request['meta'])
        self._save(sync=False)
        self._tell(c.record)
        return c.record

    def op_exec(self, client: Client, request: dict[str, Any], fds: list[int]) -> dict[str, int]:
        """Run a command beside a container, on descriptors that came with the request."""
        if self._closing:
            raise BadRequest('the pod is closing')
        c = self._container(request)
        if not c.running:
            raise BadRequest('container not running')
        if len(fds) != 3:
            raise BadRequest('exec needs three descriptors')
        pid = spawn(request['spec'], fds, tty=bool(request['tty']))
        self._sessions[pid] = (client, request['id'], c)
        return {'pid': pid}

    def op_attach(self, client: Client, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Copy the container's output to the given pipes (stdout, stderr) and hand out its input, if it has one."""
        c = self._container(request)
        if not c.running:
            raise BadRequest('container not running')
        c.attach([os.dup(fd) for fd in fds])
        client.send_fd_next = c.input_fd()
        return {'tty': c.tty, 'stdin': c.input_fd() >= 0}

    def op_close_stdin(self, client: Client, request: dict[str, Any], fds: list[int]) -> None:
        self._container(request).close_stdin()

    def op_close(self, client: Client, request: dict[str, Any], fds: list[int]) -> None:
        """Stop every container, then end."""
        self._close(float(request['grace_s']))
        self._sweep()


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was quicker
        os.kill(pid, number)


def _kill_group(pid: int, number: int) -> None:
    """Every process of the group that `pid` leads; 0 would be our own group and is no container's."""
    if pid <= 1:
        return
    # Gone, or changed its user beyond us: the sweep finds what is left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
