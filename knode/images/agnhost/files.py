"""agnhost subcommands that look at files and print what they find."""

from __future__ import annotations

import os
import random
import stat
import sys
import time
from pathlib import Path

from knode.images import pause as pausing
from knode.images.agnhost import flag, flags

LOOK_S = 1.0
"""Between two looks at a file that may change."""


def pause(args: list[str]) -> int:
    print('Paused', flush=True)
    return pausing.main()


def entrypoint_tester(args: list[str]) -> int:
    print(f'[{" ".join(["/agnhost", "entrypoint-tester", *args])}]', flush=True)
    return 0


def etc_hosts(args: list[str]) -> int:
    print(Path('/etc/hosts').read_text(), end='', flush=True)
    return 0


def _resolver(word: str) -> list[str]:
    lines = [line.split() for line in Path('/etc/resolv.conf').read_text().splitlines()]
    return [value for line in lines if line[:1] == [word] for value in line[1:]]


def dns_suffix(args: list[str]) -> int:
    print(','.join(_resolver('search')), flush=True)
    return 0


def dns_server_list(args: list[str]) -> int:
    print(','.join(_resolver('nameserver')), flush=True)
    return 0


def mount_test(args: list[str]) -> int:
    """Make the files asked for, then tell about those asked about; the texts are what upstream's tests look for."""
    os.umask(0)
    try:
        for wanted, mode in (('new_file_0644', 0o644), ('new_file_0666', 0o666), ('new_file_0660', 0o660),
                             ('new_file_0777', 0o777)):  # fmt: skip
            for path in flags(args, wanted):
                _make(path, mode)
        for path in flags(args, 'fs_type'):
            print(f'mount type of "{path}": {_filesystem(path)}')
        for path in flags(args, 'file_mode'):
            print(f'mode of file "{path}": {_mode(os.lstat(path).st_mode)}')
        for path in flags(args, 'file_perm'):
            print(f'perms of file "{path}": {_mode(os.stat(path).st_mode)}')
        for path in flags(args, 'file_owner'):
            print(f'owner UID of "{path}": {os.stat(path).st_uid}\nowner GID of "{path}": {os.stat(path).st_gid}')
        for path in flags(args, 'file_content'):
            print(f'content of file "{path}": {Path(path).read_text()}')
        return _follow(args)
    except OSError as e:
        print(f'error reading file content for "{e.filename}": {e.strerror}', flush=True)
        return 1


def _follow(args: list[str]) -> int:
    """`--file_content_in_loop`: tell a file's content again and again while the files of a volume change."""
    paths = flags(args, 'file_content_in_loop')
    until = time.monotonic() + float(flag(args, 'retry_time', '180')) if paths else 0.0
    while time.monotonic() < until:
        for path in paths:
            try:
                print(f'content of file "{path}": {Path(path).read_text()}', flush=True)
            except OSError as e:
                print(f'Error reading file {path}: open {path}: {(e.strerror or "").lower()}, retrying', flush=True)
        time.sleep(LOOK_S)
    sys.stdout.flush()
    return 0


def _make(path: str, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    os.write(fd, b'mount-tester new file\n')
    os.fchmod(fd, mode)
    os.close(fd)


def _mode(mode: int) -> str:
    """As Go's os.FileMode prints it."""
    text = stat.filemode(mode)
    return ('-' if stat.S_ISREG(mode) else {'l': 'L'}.get(text[0], text[0])) + text[1:]


def _filesystem(path: str) -> str:
    device = os.stat(path).st_dev
    for line in Path('/proc/self/mountinfo').read_text().splitlines():
        fields = line.split()
        major, minor = fields[2].split(':')
        if os.makedev(int(major), int(minor)) == device:
            return fields[fields.index('-') + 1]
    return 'unknown'


def logs_generator(args: list[str]) -> int:
    """`--log-lines-total` lines of an invented API server, spread over `--run-duration`."""
    total, duration = int(flag(args, 'log-lines-total', '0')), _seconds(flag(args, 'run-duration', '0s'))
    rng = random.Random()  # noqa: S311 — invented log lines
    for n in range(total):
        verb, namespace = rng.choice(('GET', 'PUT', 'POST')), rng.choice(('ns', 'default', 'kube-system'))
        print(f'{n:>4} {verb} /api/v1/namespaces/{namespace}/pods/{rng.randrange(36**4):x} {rng.randrange(200, 600)}',
              flush=True)  # fmt: skip
        time.sleep(duration / total)
    return 0


def _seconds(text: str) -> float:
    """Of a Go duration of one unit: 500ms, 20s, 2m."""
    for unit, factor in (('ms', 0.001), ('s', 1.0), ('m', 60.0), ('h', 3600.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text or 0)
