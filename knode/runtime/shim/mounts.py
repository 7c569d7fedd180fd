"""Real mount paths for a container, in a mount namespace of its own.

A bind mount needs something to be mounted on. Where a mount path does not exist on the host, its deepest existing
ancestor is covered by a tmpfs that shows the same entries (each bound from the original) and has room for the
missing ones; the host itself is never written to. Without privilege the namespace comes with a user namespace that
maps the user to itself. Source: mount_namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 1, 32, 4096, 8192, 16384, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


class MountError(Exception):
    """The text is for the container's StartError."""


def mount_all(mounts: Sequence[dict[str, Any]], staging: str, *, read_only_root: bool = False) -> None:
    """Enter a new mount namespace and put every mount in its place. Only for a child that will exec.

    mounts:   source, target, read_only; targets are absolute.
    staging:  an empty directory to build cover directories in.
    """
    unshare()
    _mount('none', '/', MS_REC | MS_PRIVATE)
    for n, m in enumerate(sorted(mounts, key=lambda m: len(str(m['target'])))):
        source, target = os.path.realpath(m['source']), os.path.realpath(m['target'])
        _make_room(target, os.path.isdir(source), os.path.join(staging, str(n)))
        _mount(source, target, MS_BIND | MS_REC)
        if m.get('read_only'):
            _mount('none', target, MS_REMOUNT | MS_BIND | MS_RDONLY)
    if read_only_root:
        _set_read_only('/', value=True)
        kept = [os.path.realpath(m['target']) for m in mounts if not m.get('read_only')]
        for target in ('/dev', '/proc', *kept):
            _set_read_only(target, value=False)


class _MountAttr(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint64) for n in ('attr_set', 'attr_clr', 'propagation', 'userns_fd')]


def _set_read_only(path: str, *, value: bool) -> None:
    """Of a mount and everything mounted below it. Raises MountError before Linux 5.12."""
    attr = _MountAttr(attr_set=MOUNT_ATTR_RDONLY if value else 0, attr_clr=0 if value else MOUNT_ATTR_RDONLY)
    call = (SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), AT_RECURSIVE, ctypes.byref(attr), ctypes.sizeof(attr))
    if _libc.syscall(*call) != 0:
        raise MountError(f'changing "{path}" to read-{"only" if value else "write"}: {os.strerror(ctypes.get_errno())}')


def unshare() -> None:
    """A mount namespace, with a user namespace around it when that is what it takes. Raises MountError."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and _libc.unshare(CLONE_NEWNS) == 0:
        return
    if _libc.unshare(CLONE_NEWNS | CLONE_NEWUSER) != 0:
        raise MountError(f'mount namespace: {os.strerror(ctypes.get_errno()).lower()}')
    for path, text in (('setgroups', 'deny'), ('uid_map', f'{uid} {uid} 1'), ('gid_map', f'{gid} {gid} 1')):
        fd = os.open(f'/proc/self/{path}', os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, text.encode())
        os.close(fd)


def enter(pid: int) -> None:
    """Join the mount namespace (and, unprivileged, the user namespace) of a container. Raises MountError."""
    for name, flag in (('user', CLONE_NEWUSER), ('mnt', CLONE_NEWNS)):
        theirs = f'/proc/{pid}/ns/{name}'
        try:
            if os.readlink(theirs) == os.readlink(f'/proc/self/ns/{name}'):
                continue
            fd = os.open(theirs, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            raise MountError(f'namespace of the container: {(e.strerror or "").lower()}') from e
        if _libc.setns(fd, flag) != 0:
            raise MountError(f'setns: {os.strerror(ctypes.get_errno()).lower()}')
        os.close(fd)


def supported() -> bool:
    """Whether this kernel gives this user mount namespaces; tried in a child, which costs a millisecond once."""
    answer, child_answer = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        try:
            unshare()
            _mount('none', '/', MS_REC | MS_PRIVATE)
            os.write(child_answer, b'y')
        finally:
            os._exit(0)  # the zygote ignores SIGCHLD: nobody waits, the pipe tells
    os.close(child_answer)
    try:
        return os.read(answer, 1) == b'y'
    finally:
        os.close(answer)


def _mount(source: str, target: str, flags: int, kind: str = '') -> None:
    encoded = [os.fsencode(source), os.fsencode(target), kind.encode() or None]
    if _libc.mount(*encoded, ctypes.c_ulong(flags), None) != 0:
        number = ctypes.get_errno()
        raise MountError(f'mounting "{source}" at "{target}": {os.strerror(number).lower()}')


def _make_room(target: str, directory: bool, staging: str) -> None:
    """Make `target` exist in this namespace."""
    if os.path.lexists(target):
        if os.path.isdir(target) != directory:
            raise MountError(f'mount path "{target}" is {"a file" if directory else "a directory"} on this host')
        return
    ancestor = os.path.dirname(target)
    while not os.path.isdir(ancestor):
        ancestor = os.path.dirname(ancestor)
    _cover(ancestor, staging)
    if directory:
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _cover(ancestor: str, staging: str) -> None:
    os.makedirs(staging, exist_ok=True)
    mode = os.stat(ancestor).st_mode & 0o7777
    _mount('tmpfs', staging, 0, 'tmpfs')
    for entry in os.scandir(ancestor):
        twin = os.path.join(staging, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), twin)
        elif entry.is_dir():
            os.mkdir(twin)
            _mount(entry.path, twin, MS_BIND | MS_REC)
        else:
            os.close(os.open(twin, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
            _mount(entry.path, twin, MS_BIND)
    os.chmod(staging, mode)
    if ancestor == '/':
        os.chroot(staging)
        os.chdir('/')
    else:
        _mount(staging, ancestor, MS_MOVE)
