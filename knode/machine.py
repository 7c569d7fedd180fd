"""What this machine is: read once at the start."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

import psutil

from kcore.env import Env
from knode.config import NodeConfig
from knode.node_status import Machine

_ARCHITECTURES = {'x86_64': 'amd64', 'aarch64': 'arm64', 'armv7l': 'arm'}


def describe(config: NodeConfig, env: Env) -> Machine:
    return Machine(
        hostname=config.name,
        cpu=config.cpu or str(os.cpu_count() or 1),
        memory=config.memory or f'{psutil.virtual_memory().total // 1024}Ki',
        storage=config.ephemeral_storage or f'{psutil.disk_usage(str(config.data_dir)).total // 1024}Ki',
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
