"""From a container's spec to something a driver can start: image, environment, command, user, limits."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from knode.errors import RunError
from knode.images.catalogue import Image, host_environment
from knode.logs import end_of
from knode.pods import security
from knode.pods.environment import Sources, environment
from knode.pods.expand import expand
from knode.pods.host import Host
from knode.pods.model import Obj, Start
from knode.pods.resources import limits_of, oom_score, rlimits
from knode.runtime.driver import Capabilities, ContainerSpec, Record
from knode.runtime.shim.container import MARK
from knode.volumes import etc

TERMINATION_MESSAGE_BYTES_MAX = 4096
FALLBACK_LINES_MAX = 80
FALLBACK_BYTES_MAX = 2048
FALLBACK_READ_BYTES = 64 * 1024
"""Of the log's end: 2 KiB of text, in lines of one letter each, with the time and stream of each."""
POD_MESSAGES_BYTES_MAX = 12 * 1024
"""Of all containers of a pod together."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a pod lives on disk."""

    root: Path

    @property
    def uid(self) -> str:
        return self.root.name

    def work(self, container: str) -> Path:
        return self.root / 'containers' / container

    def log(self, container: str, attempt: int) -> Path:
        return self.root / 'logs' / container / f'{attempt}.log'

    def termination(self, container: str, attempt: int) -> Path:
        return self.root / 'containers' / container / f'.termination-{attempt}'

    @property
    def volumes(self) -> Path:
        return self.root / 'volumes'


def spec_hash(container: Obj) -> str:
    """Changes when the container has to be made anew."""
    return hashlib.sha256(orjson.dumps(dict(container), option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def container_spec(
    host: Host,
    pod: Obj,
    start: Start,
    image: Image,
    *,
    sources: Sources,
    place: tuple[Paths, str, str],
    can: Capabilities,
) -> ContainerSpec:
    """place: paths, pod IP, sandbox identity. can: the driver. Raises ContainerConfigError, RunError."""
    paths, pod_ip, sandbox = place
    c = start.container
    name = c['name']
    wanted = environment(pod, c, host.facts(pod_ip), sources)
    env = {**host_environment(), **image.env, 'HOME': str(paths.work(name))}
    env['HOSTNAME'] = etc.hostname(pod) or socket.gethostname()
    env |= _surroundings(pod, c, paths, pod_ip, start.attempt) | wanted
    container_id = host.env.new_uid().replace('-', '') + host.env.new_uid().replace('-', '')
    wishes = security.merged(pod, c)
    security.check(wishes, can)
    uid, gid, groups = security.user(pod, c, wishes, can)
    keeps = security.bounding(wishes, can)
    no_new_privs = wishes.get('allowPrivilegeEscalation') is False
    return ContainerSpec(
        id=container_id,
        name=name,
        attempt=start.attempt,
        argv=_argv(c, image, wanted),
        env=env | {MARK: container_id},
        cwd=c.get('workingDir') or str(paths.work(name)),
        log=str(paths.log(name, start.attempt)),
        tty=bool(c.get('tty')),
        stdin=bool(c.get('stdin')),
        uid=uid,
        gid=gid,
        groups=groups,
        rlimits=rlimits(c),
        limits=limits_of(pod, c, host.pod_pids),
        oom_score_adj=oom_score(pod, c, host.allocatable),
        no_new_privs=no_new_privs,
        capabilities=keeps,
        read_only_root=bool(wishes.get('readOnlyRootFilesystem')),
        meta={
            'image': c['image'],
            'image_id': image.id,
            'hash': spec_hash(c),
            'resources': c.get('resources') or {},
            'backoff_s': start.backoff_s,
            'kind': start.kind,
            'sandbox': sandbox,
            'cwd': c.get('workingDir') or str(paths.work(name)),
            'uid': uid,
            'gid': gid,
            'groups': list(groups),
            'user': security.identity(uid, gid, groups),
            'no_new_privs': no_new_privs,
            'capabilities': keeps,
        },
    )


def _argv(c: Obj, image: Image, env: Mapping[str, str]) -> list[str]:
    command = [expand(a, env) for a in c.get('command') or ()]
    args = [expand(a, env) for a in c.get('args') or ()]
    argv = command + args if command else [*image.entrypoint, *(args or image.cmd)]
    if not argv:
        raise RunError('no command specified')
    return argv


def _surroundings(pod: Obj, c: Obj, paths: Paths, pod_ip: str, attempt: int) -> dict[str, str]:
    """What a process has to be told because no namespace shows it: its address and its directories."""
    return {
        'POD_IP': pod_ip,
        'KUBELING_POD_DIR': str(paths.root),
        'KUBELING_VOLUMES': str(paths.volumes),
        'KUBELING_TERMINATION_LOG': str(paths.termination(c['name'], attempt)),
    }


def termination_message(paths: Paths, c: Obj, record: Record, of: int) -> str:
    """The end of its file, or of the log when the policy asks for that. of: how many containers the pod has.

    Source: kuberuntime_container.go getTerminationMessage, status_manager.go normalizeStatus.
    """
    text = end_of(paths.termination(record.name, record.attempt), TERMINATION_MESSAGE_BYTES_MAX)
    if not text and c.get('terminationMessagePolicy') == 'FallbackToLogsOnError' and record.exit_code:
        lines = end_of(Path(record.log), FALLBACK_READ_BYTES).splitlines(keepends=True)[-FALLBACK_LINES_MAX:]
        text = b''.join(_content(line) for line in lines)[-FALLBACK_BYTES_MAX:]
    return text[: POD_MESSAGES_BYTES_MAX // max(of, 1)].decode(errors='replace')


def _content(record: bytes) -> bytes:
    parts = record.split(b' ', 3)
    if len(parts) < 4:
        return b''
    return parts[3] if parts[2] == b'F' else parts[3].rstrip(b'\n')
