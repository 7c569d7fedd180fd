"""Real mount paths for a container, in a mount namespace of its own.

A bind mount needs something to be mounted on. Where a mount path does not exist on the host, its deepest existing
ancestor is covered by a tmpfs that shows the same entries and has room for the missing ones; the host itself is never
written to. Directories, files and the devices of every container are bound from the original; what else there is (a
hundred devices in /dev, sockets in /run) leads there by a link, since each mount costs as much as ten links. Without
privilege the namespace comes with a user namespace that maps the user to itself. A pod with volumes in memory has one
more namespace, its shim's, in which they are mounted: its containers inherit them, and they go with its last process.
Source: mount_namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWUSER = 0x00020000, 0x04000000, 0x10000000
SYS_OPENAT2, RESOLVE_BENEATH = 437, 8
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
MS_NOSUID, MS_NODEV = 2, 4
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 4096, 16384, 1 << 18, 1 << 19
SYS_OPEN_TREE, OPEN_TREE_CLONE, O_CLOEXEC = 428, 1, 0o2000000
SYS_MOVE_MOUNT, MOVE_MOUNT_F_EMPTY_PATH = 429, 4
UNDER = '.host'
"""In a covered directory: what it covers."""
DEVICES = frozenset(('null', 'zero', 'full', 'random', 'urandom', 'tty'))
"""Found also by programs that look at the entry itself. Not ptmx: it looks for `pts` beside it, where it is mounted."""

# Looked up here, once, with what they take: in a fork each first use of anything copies the pages it is on.
_libc = ctypes.CDLL(None, use_errno=True)
_mount_call, _unshare, _setns, _sethostname, _syscall = (
    getattr(_libc, name) for name in ('mount', 'unshare', 'setns', 'sethostname', 'syscall')
)
_mount_call.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


class MountError(Exception):
    """The text is for the container's StartError."""


def mount_all(mounts: Sequence[Mapping[str, Any]], staging: str, *, hostname: str, read_only_root: bool) -> None:
    """Enter new mount and UTS namespaces and put every mount in its place. Only for a child that will exec.

    mounts:    source, sub_path (within the source; made when missing), absolute target, read_only, recursive.
    staging:   a directory that becomes the root where a mount path is right below it; made when it is missing.
    hostname:  what the container takes for its name; empty: the machine's.
    """
    unshare(CLONE_NEWUTS if hostname else 0)
    if hostname and _sethostname(hostname.encode(), len(hostname.encode())) != 0:
        raise MountError(f'hostname "{hostname}": {os.strerror(ctypes.get_errno()).lower()}')
    _mount('none', '/', MS_REC | MS_PRIVATE)
    # All sources are opened before the first mount, which may cover one of them.
    sources = [open_beneath(m['source'], m.get('sub_path') or '') for m in mounts]
    order = sorted(range(len(mounts)), key=lambda n: len(str(mounts[n]['target'])))
    covers: set[int] = set()
    for n in order:
        source, (there, missing) = f'/proc/self/fd/{sources[n]}', _find(str(mounts[n]['target']))
        target = '/'.join((there.rstrip('/'), *missing))
        _make_room(there, missing, stat.S_ISDIR(os.fstat(sources[n]).st_mode), staging, covers)
        _mount(source, target, MS_BIND | MS_REC)
        if mounts[n].get('read_only'):
            _set_read_only(target, value=True, recursive=bool(mounts[n].get('recursive')))
        os.close(sources[n])
    if read_only_root:
        _set_read_only('/', value=True, recursive=True)
        kept = [os.path.realpath(m['target']) for m in mounts if not m.get('read_only')]
        for target in ('/dev', '/proc', *kept):
            _set_read_only(target, value=False, recursive=True)


def _find(target: str) -> tuple[str, list[str]]:
    """What of the way to `target` is there, without links, and the names below it. Raises MountError, as runc, where a
    mount would not be seen or break /proc.

    Asked of `access`, for which what is not there is no exception: the first one in a fork costs 60 µs, `realpath` 250.
    """
    path = os.path.realpath(target) if '..' in target else target
    names = [name for name in path.split('/') if name not in {'', '.'}]
    there, missing = '', list[str]()
    for n, name in enumerate(names):
        below = f'{there}/{name}'
        if not os.access(below, os.F_OK):
            if os.access(below, os.F_OK, follow_symlinks=False):
                return _find_led(target)
            missing = names[n:]
            break
        there = below
    fd = os.open(there or '/', os.O_PATH | os.O_CLOEXEC)
    there = os.readlink(f'/proc/self/fd/{fd}')
    os.close(fd)
    if there == '/' and not missing:
        raise MountError(f'mount path "{target}" is the root of the container')
    if there == '/proc' or (there.startswith('/proc/') and (missing or not os.path.isfile(there))):
        raise MountError(f'"{target}" cannot be mounted because it is inside /proc')
    return there, missing


def _find_led(target: str) -> tuple[str, list[str]]:
    """Like `_find` by a link to what is not there, which is where it has to be made."""
    led = os.path.realpath(target)
    if led == target:
        raise MountError(f'mount path "{target}": {os.strerror(errno.ELOOP).lower()}')
    return _find(led)


class _OpenHow(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint64) for n in ('flags', 'mode', 'resolve')]


def open_beneath(root: str, sub: str) -> int:
    """A descriptor (O_PATH) of `root/sub`, which never leads out of `root`, whatever symlinks are or get in the way.

    Missing directories are made with the mode and owner of `root`. Raises MountError.
    """
    top = os.open(root, os.O_PATH | os.O_CLOEXEC)
    if not sub:
        return top
    try:
        parts, here = [p for p in sub.split('/') if p not in {'', '.'}], top
        for n in range(1, len(parts) + 1):
            path = '/'.join(parts[:n])
            found = _openat2(top, path)
            if found == -errno.ENOENT:
                _make_like(top, here, parts[n - 1])
                found = _openat2(top, path)
            if here != top:
                os.close(here)
            here = top
            if found < 0:
                raise MountError(f'subPath "{sub}": {os.strerror(-found).lower()}')
            here = found
        return here if here != top else os.dup(top)
    finally:
        os.close(top)


def _openat2(directory: int, path: str) -> int:
    """A descriptor, or the negative error number."""
    how = _OpenHow(flags=os.O_PATH | os.O_CLOEXEC, mode=0, resolve=RESOLVE_BENEATH)
    fd = int(_syscall(SYS_OPENAT2, directory, _bytes(path), ctypes.byref(how), ctypes.sizeof(how)))
    return fd if fd >= 0 else -ctypes.get_errno()


def _make_like(root: int, parent: int, name: str) -> None:
    """The directory `name` in `parent`, open to whom `root` is open to."""
    like = os.fstat(root)
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:  # another container of the pod was quicker
        return
    except OSError as e:
        raise MountError(f'subPath "{name}": {(e.strerror or "").lower()}') from e
    if os.geteuid() == 0:
        os.chown(name, like.st_uid, like.st_gid, dir_fd=parent, follow_symlinks=False)
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    os.fchmod(fd, like.st_mode & 0o7777)
    os.close(fd)


def hold_in_memory(volumes: Mapping[str, int]) -> None:
    """Enter a mount namespace in which each of these directories is a tmpfs. For a shim, before its first container.

    volumes:  path → most bytes; 0: as much as the kernel gives.
    """
    unshare()
    _mount('none', '/', MS_REC | MS_SLAVE)
    for path, size_bytes in volumes.items():
        like = os.stat(path)
        size = f',size={size_bytes}' if size_bytes else ''
        options = f'mode={like.st_mode & 0o7777:o},gid={like.st_gid}{size}'
        _mount('tmpfs', path, MS_NOSUID | MS_NODEV, 'tmpfs', options)


class _MountAttr(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint64) for n in ('attr_set', 'attr_clr', 'propagation', 'userns_fd')]


def _set_read_only(path: str, *, value: bool, recursive: bool) -> None:
    """Of a mount, or of everything mounted below it, too. Raises MountError before Linux 5.12.

    An older remount would have to name every other flag of the mount: without privilege none may be taken off it.
    """
    attr = _MountAttr(attr_set=MOUNT_ATTR_RDONLY if value else 0, attr_clr=0 if value else MOUNT_ATTR_RDONLY)
    flags = AT_RECURSIVE if recursive else 0
    call = (SYS_MOUNT_SETATTR, AT_FDCWD, _bytes(path), flags, ctypes.byref(attr), ctypes.sizeof(attr))
    if _syscall(*call) != 0:
        raise MountError(f'changing "{path}" to read-{"only" if value else "write"}: {os.strerror(ctypes.get_errno())}')


def unshare(more: int = 0) -> None:
    """A mount namespace, with a user namespace around it when that is what it takes. Raises MountError.

    more:  flags of further namespaces.
    """
    uid, gid = os.geteuid(), os.getegid()
    if _unshare(CLONE_NEWNS | more) == 0:
        return
    if _unshare(CLONE_NEWNS | CLONE_NEWUSER | more) != 0:
        raise MountError(f'mount namespace: {os.strerror(ctypes.get_errno()).lower()}')
    for path, text in (('setgroups', 'deny'), ('uid_map', f'{uid} {uid} 1'), ('gid_map', f'{gid} {gid} 1')):
        fd = os.open(f'/proc/self/{path}', os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, text.encode())
        os.close(fd)


def enter(pid: int) -> None:
    """Take a container's place: its namespaces (mount, UTS; unprivileged also user) and its root. Raises MountError."""
    try:
        root = os.open(f'/proc/{pid}/root', os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for name, flag in (('user', CLONE_NEWUSER), ('uts', CLONE_NEWUTS), ('mnt', CLONE_NEWNS)):
            theirs = f'/proc/{pid}/ns/{name}'
            if os.readlink(theirs) == os.readlink(f'/proc/self/ns/{name}'):
                continue
            fd = os.open(theirs, os.O_RDONLY | os.O_CLOEXEC)
            if _setns(fd, flag) != 0:
                raise MountError(f'setns: {os.strerror(ctypes.get_errno()).lower()}')
            os.close(fd)
        # A namespace is entered at its first root; a container with a mount below `/` has changed it since.
        os.fchdir(root)
        os.chroot('.')
        os.close(root)
    except OSError as e:
        raise MountError(f'namespace of the container: {(e.strerror or "").lower()}') from e


def supported() -> bool:
    """Whether this kernel gives this user mount namespaces: by entering one. Only for a child that will end."""
    try:
        unshare()
        _mount('none', '/', MS_REC | MS_PRIVATE)
    except (MountError, OSError):
        return False
    return True


def _bytes(path: str) -> bytes:
    """As `os.fsencode` has it where the file system's encoding is UTF-8, as it is without a locale."""
    return path.encode(errors='surrogateescape')


def _mount(source: str, target: str, flags: int, kind: str = '', options: str = '') -> None:
    if _mount_call(_bytes(source), _bytes(target), kind.encode() or None, flags, options.encode() or None) != 0:
        number = ctypes.get_errno()
        raise MountError(f'mounting "{source}" at "{target}": {os.strerror(number).lower()}')


def _make_room(there: str, missing: Sequence[str], directory: bool, staging: str, covers: set[int]) -> None:
    """Make `missing` exist below `there` in this namespace. `covers`: device numbers of those so far."""
    if not missing:
        if stat.S_ISDIR(os.stat(there).st_mode) != directory:
            raise MountError(f'mount path "{there}" is {"a file" if directory else "a directory"} on this host')
        return
    if os.stat(there).st_dev not in covers:
        covers.add(_cover(there, staging))
    here = there.rstrip('/')
    for n, name in enumerate(missing, 1):
        here = f'{here}/{name}'
        if directory or n < len(missing):
            os.mkdir(here)
        else:
            os.mknod(here, 0o644)


def _cover(ancestor: str, staging: str) -> int:
    """Returns the device number of the cover."""
    covered = os.open(ancestor, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    mode = os.fstat(covered).st_mode & 0o7777
    tree = _clone(ancestor)
    place = staging if ancestor == '/' else ancestor  # what is mounted over the root is not seen by who is in it
    if not os.access(place, os.F_OK):
        os.makedirs(place)
    _mount('tmpfs', place, 0, 'tmpfs', f'mode={mode:o}')
    os.chdir(place)
    os.mkdir(UNDER)
    _attach(tree, UNDER)
    os.close(tree)
    for entry in os.scandir(covered):
        name = entry.name
        under = f'{UNDER}/{name}'
        if entry.is_symlink():
            os.symlink(os.readlink(under), name)
        elif entry.is_dir():
            os.mkdir(name)
            _mount(under, name, MS_BIND | MS_REC)
        elif entry.is_file() or name in DEVICES:
            os.mknod(name, 0o644)
            _mount(under, name, MS_BIND)
        elif not _is_console(name):
            os.symlink(under, name)
    os.close(covered)
    if ancestor == '/':
        os.chroot('.')
    os.chdir('/')
    return os.stat(ancestor).st_dev


def _is_console(name: str) -> bool:
    """A virtual console of the machine: two of three entries of /dev, 0.3 ms of links to what no container is given."""
    return name.startswith('vcs') or (name.startswith('tty') and name[3:].isdigit())


def _clone(path: str) -> int:
    """A descriptor of everything that is mounted at `path` and below. Raises MountError."""
    flags = OPEN_TREE_CLONE | O_CLOEXEC | AT_RECURSIVE
    fd = int(_syscall(SYS_OPEN_TREE, AT_FDCWD, _bytes(path), flags))
    if fd < 0:
        raise MountError(f'what is mounted at "{path}": {os.strerror(ctypes.get_errno()).lower()}')
    return fd


def _attach(tree: int, path: str) -> None:
    """Mount what `_clone` gave. Raises MountError."""
    if _syscall(SYS_MOVE_MOUNT, tree, b'', AT_FDCWD, _bytes(path), MOVE_MOUNT_F_EMPTY_PATH) != 0:
        raise MountError(f'mounting at "{path}": {os.strerror(ctypes.get_errno()).lower()}')
