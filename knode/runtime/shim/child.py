"""Fork and exec of one container (or exec session), with the failure texts that Kubernetes users know.

The child reports a failure before `exec` through a close-on-exec pipe, so that the parent learns of it without
guessing from an exit code. The texts are those of runc, without the layers above it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import stat
import termios
from collections.abc import Mapping, Sequence
from typing import Any

from knode.runtime.shim import host, mounts

NOT_STARTED = 128
"""Exit code of a container whose process never came to be, as containerd reports it."""


class StartError(Exception):
    """The process could not be made; the text is for `kubectl describe`."""


def spawn(spec: Mapping[str, Any], stdio: Sequence[int], *, tty: bool) -> int:
    """Start `spec` (a driver's ContainerSpec as JSON; only argv, env and cwd must be there). Returns the pid.

    stdio:   three descriptors for the child; all its other descriptors are close-on-exec.
    Raises:  StartError with the text for people.
    """
    report, child_report = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as e:
        os.close(report)
        os.close(child_report)
        raise StartError(f'unable to start container process: fork: {e.strerror}') from e
    if pid == 0:
        _become(spec, stdio, child_report, parent, tty)
    os.close(child_report)
    problem = host.read_all(report)
    if problem:
        os.waitpid(pid, 0)
        raise StartError(problem.decode(errors='replace'))
    return pid


def _become(spec: Mapping[str, Any], stdio: Sequence[int], report: int, parent: int, tty: bool) -> None:
    """The child's side; never returns."""
    try:
        os.setsid()
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        if tty:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        host.default_signals()
        _enter_cgroups(spec)
        _limit(spec)
        _arrange_mounts(spec)
        _change_directory(str(spec['cwd']))  # as the agent's user: the pod's directory is closed to others
        _change_user(spec)
        # Set last: a change of user clears it. If the shim dies, the container dies with it.
        host.prctl(host.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(NOT_STARTED)
        os.umask(0o022)
        _exec(list(spec['argv']), dict(spec['env']))
    except StartError as e:
        os.write(report, f'unable to start container process: {e}'.encode())
    except ValueError as e:  # a NUL in what the kernel is told
        os.write(report, f'unable to start container process: invalid argument: {e}'.encode())
    except BaseException as e:
        os.write(report, f'unable to start container process: {type(e).__name__}: {e}'.encode())
    os._exit(NOT_STARTED)


def _text(e: OSError) -> str:
    return (e.strerror or str(e)).lower()


def _enter_cgroups(spec: Mapping[str, Any]) -> None:
    for path in spec.get('cgroups') or ():
        try:
            fd = os.open(path, os.O_WRONLY)
            os.write(fd, b'0')
            os.close(fd)
        except OSError as e:
            raise StartError(f'entering control group {os.path.dirname(path)}: {_text(e)}') from e


def _limit(spec: Mapping[str, Any]) -> None:
    for name, pair in (spec.get('rlimits') or {}).items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        # What we have been given ourselves cannot be exceeded.
        resource.setrlimit(kind, tuple(pair if hard == resource.RLIM_INFINITY else [min(n, hard) for n in pair]))
    adj = spec.get('oom_score_adj')
    if adj is not None:
        try:
            fd = os.open('/proc/self/oom_score_adj', os.O_WRONLY)
            os.write(fd, str(adj).encode())
            os.close(fd)
        except OSError as e:
            if e.errno not in (
                errno.EACCES,
                errno.EPERM,
                errno.ENOENT,
            ):  # lowering needs privilege; the rest is a fault
                raise
    if spec.get('no_new_privs'):
        host.prctl(host.PR_SET_NO_NEW_PRIVS, 1)


def _arrange_mounts(spec: Mapping[str, Any]) -> None:
    try:
        if spec.get('mounts') or spec.get('read_only_root'):
            mounts.mount_all(
                spec['mounts'], str(spec['staging']), hostname=str(spec.get('hostname') or ''),
                read_only_root=bool(spec.get('read_only_root')),
            )  # fmt: skip
        elif spec.get('mount_pid'):
            mounts.enter(int(spec['mount_pid']))
    except mounts.MountError as e:
        raise StartError(f'error mounting volumes: {e}') from e
    except OSError as e:
        raise StartError(f'error mounting volumes: {e.filename or ""}: {_text(e)}') from e


def _change_user(spec: Mapping[str, Any]) -> None:
    uid, gid = spec.get('uid'), spec.get('gid')
    try:
        if spec.get('capabilities') is not None:
            host.bound_capabilities(spec['capabilities'])
        if uid is None and gid is None:
            return
        if os.geteuid() == 0:
            os.setgroups(spec.get('groups') or [])
        if gid is not None:
            os.setresgid(gid, gid, gid)
        if uid is not None:
            os.setresuid(uid, uid, uid)
    except OSError as e:
        raise StartError(f'setting up user: {_text(e)}') from e


def _change_directory(cwd: str) -> None:
    try:
        os.chdir(cwd)
    except OSError as e:
        raise StartError(f'chdir to cwd ("{cwd}") failed: {_text(e)}') from e


def _exec(argv: list[str], env: dict[str, str]) -> None:
    name = argv[0]
    if '/' in name:
        path = name
        _check(path)
    else:
        path = _look_up(name, env.get('PATH', ''))
    try:
        os.execve(path, argv, env)  # noqa: S606 — running what the pod says is the purpose
    except OSError as e:
        text = 'exec format error' if e.errno == errno.ENOEXEC else _text(e)
        raise StartError(f'exec {path}: {text}') from e


def _look_up(name: str, search: str) -> str:
    for folder in search.split(':'):
        path = f'{folder or "."}/{name}'
        # What is not there is no exception to `access`; the first one in a fork costs 60 µs.
        if os.access(path, os.X_OK) and stat.S_ISREG(os.stat(path).st_mode):
            return path
    raise StartError(f'exec: "{name}": executable file not found in $PATH')


def _check(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as e:
        raise StartError(f'exec: "{path}": stat {path}: no such file or directory') from e
    except OSError as e:
        raise StartError(f'exec: "{path}": stat {path}: {_text(e)}') from e
    if stat.S_ISDIR(mode):
        raise StartError(f'exec: "{path}": is a directory')
    if not os.access(path, os.X_OK):
        raise StartError(f'exec: "{path}": permission denied')
