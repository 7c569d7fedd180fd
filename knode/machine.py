"""What this machine is and how it fares: read once at the start, pressure every few seconds."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

import psutil

from kcore.env import Env
from knode.config import NodeConfig
from knode.node_status import Machine, Pressure
from knode.runtime.shim import host

MEMORY_AVAILABLE_MIN = 100 * 1024 * 1024
DISK_AVAILABLE_MIN = 128 * 1024 * 1024
"""An absolute bound, not upstream's 10 %: a laptop's disk is often 95 % full and still has room for pods."""
PIDS_FREE_MIN_SHARE = 0.05

_ARCHITECTURES = {'x86_64': 'amd64', 'aarch64': 'arm64', 'armv7l': 'arm'}


def describe(config: NodeConfig, env: Env) -> Machine:
    return Machine(
        hostname=config.name,
        cpu=config.cpu or str(os.cpu_count() or 1),
        memory=config.memory or f'{psutil.virtual_memory().total // 1024}Ki',
        storage_bytes=psutil.disk_usage(str(config.data_dir)).total,
        pods=config.pods,
        machine_id=_line(env, '/etc/machine-id').replace('-', ''),
        boot_id=_line(env, '/proc/sys/kernel/random/boot_id'),
        kernel=platform.release(),
        os_image=_os_image(env),
        operating_system=platform.system().lower(),
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
    )


def _line(env: Env, path: str) -> str:
    try:
        return env.disk.read(Path(path)).decode().strip()
    except OSError:
        return socket.gethostname()


def _os_image(env: Env) -> str:
    try:
        text = env.disk.read(Path('/etc/os-release')).decode()
    except OSError:
        return platform.platform()
    pairs = dict(line.partition('=')[::2] for line in text.splitlines() if '=' in line)
    return pairs.get('PRETTY_NAME', 'Linux').strip('"')


def pressure(data_dir: Path) -> Pressure:
    """Blocking, under a millisecond."""
    memory = psutil.virtual_memory().available
    disk = psutil.disk_usage(str(data_dir)).free
    return Pressure(
        memory=f'{memory >> 20}Mi of memory are available' if memory < MEMORY_AVAILABLE_MIN else '',
        disk=f'{disk >> 20}Mi of disk are available' if disk < DISK_AVAILABLE_MIN else '',
        pids=_pids(),
    )


def _pids() -> str:
    try:
        most = int(host.read_file('/proc/sys/kernel/pid_max'))
        now = int(host.read_file('/proc/loadavg').split()[3].partition(b'/')[2])
    except (OSError, ValueError, IndexError):
        return ''
    return f'{now} of {most} process ids are in use' if now > most * (1 - PIDS_FREE_MIN_SHARE) else ''
