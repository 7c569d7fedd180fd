"""What a container's securityContext comes to on this node: honoured, announced, or refused — never dropped in silence.

A container of a privileged agent keeps the capabilities that container engines give by default, plus `add`, minus
`drop`; the others leave its bounding set. What only a kernel filter could give (seccomp, AppArmor, SELinux) is
announced when a profile merely asks for the default, and refused when a profile is named: then someone relies on it.
Source: capabilities(7), containerd oci.WithDefaultSpec.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from knode.errors import ContainerConfigError, RunError
from knode.pods.model import Verdict
from knode.runtime.driver import Capabilities

Obj = Mapping[str, Any]

NAMES = (
    'CHOWN', 'DAC_OVERRIDE', 'DAC_READ_SEARCH', 'FOWNER', 'FSETID', 'KILL', 'SETGID', 'SETUID', 'SETPCAP',
    'LINUX_IMMUTABLE', 'NET_BIND_SERVICE', 'NET_BROADCAST', 'NET_ADMIN', 'NET_RAW', 'IPC_LOCK', 'IPC_OWNER',
    'SYS_MODULE', 'SYS_RAWIO', 'SYS_CHROOT', 'SYS_PTRACE', 'SYS_PACCT', 'SYS_ADMIN', 'SYS_BOOT', 'SYS_NICE',
    'SYS_RESOURCE', 'SYS_TIME', 'SYS_TTY_CONFIG', 'MKNOD', 'LEASE', 'AUDIT_WRITE', 'AUDIT_CONTROL', 'SETFCAP',
    'MAC_OVERRIDE', 'MAC_ADMIN', 'SYSLOG', 'WAKE_ALARM', 'BLOCK_SUSPEND', 'AUDIT_READ', 'PERFMON', 'BPF',
    'CHECKPOINT_RESTORE',
)  # fmt: skip
"""In the kernel's order: the index is the capability's number."""
DEFAULT = frozenset({
    'CHOWN', 'DAC_OVERRIDE', 'FSETID', 'FOWNER', 'MKNOD', 'NET_RAW', 'SETGID', 'SETUID', 'SETFCAP', 'SETPCAP',
    'NET_BIND_SERVICE', 'SYS_CHROOT', 'KILL', 'AUDIT_WRITE',
})  # fmt: skip


def merged(pod: Obj, c: Obj) -> dict[str, Any]:
    """The container's own fields over the pod's."""
    return {**(pod['spec'].get('securityContext') or {}), **(c.get('securityContext') or {})}


def bounding(security: Obj, can: Capabilities) -> tuple[int, ...] | None:
    """Numbers of the capabilities that the container keeps; None: all that the agent has. Raises RunError."""
    wanted = security.get('capabilities') or {}
    add, drop = ({n.upper().removeprefix('CAP_') for n in wanted.get(k) or ()} for k in ('add', 'drop'))
    if unknown := sorted((add | drop) - {*NAMES, 'ALL'}):
        raise RunError(f'unknown capability "CAP_{unknown[0]}"')
    if not can.change_user:
        if security.get('privileged'):
            raise RunError('privileged: this node agent has no privilege to give')
        if add:
            raise RunError(f'capabilities {", ".join(sorted(add))} cannot be added: this node agent is not privileged')
        return None  # an unprivileged process has none that could be dropped
    if security.get('privileged'):
        return None
    kept = set() if 'ALL' in drop else set(NAMES) if 'ALL' in add else set(DEFAULT)
    kept = (kept | (add - {'ALL'})) - (drop - {'ALL'})
    return tuple(sorted(NAMES.index(n) for n in kept))


def user(pod: Obj, c: Obj, security: Obj, can: Capabilities) -> tuple[int | None, int | None, tuple[int, ...]]:
    """(uid, gid, supplementary groups); None: as the agent. Raises for what this agent may not do."""
    uid, gid = security.get('runAsUser'), security.get('runAsGroup')
    groups = _groups(security)
    effective = os.geteuid() if uid is None else uid
    if security.get('runAsNonRoot') and effective == 0:
        what = (
            "container's runAsUser breaks non-root policy"
            if uid == 0
            else 'container has runAsNonRoot and image will run as root'
        )
        meta = pod['metadata']
        where = f'pod: "{meta["name"]}_{meta["namespace"]}({meta["uid"]})", container: {c["name"]}'
        raise ContainerConfigError(f'{what} ({where})')
    if not can.change_user:
        for name, wanted, own in (('runAsUser', uid, os.geteuid()), ('runAsGroup', gid, os.getegid())):
            if wanted not in {None, own}:
                raise RunError(f'{name} {wanted}: this node agent runs as {own} and is not privileged to change that')
        return None, None, ()
    if uid is None and gid is None and not groups:
        return None, None, ()
    return effective, gid if gid is not None else 0, tuple(int(g) for g in groups)


def _groups(security: Obj) -> list[int]:
    return [*(security.get('supplementalGroups') or ()), *([security['fsGroup']] if 'fsGroup' in security else [])]


def identity(uid: int | None, gid: int | None, groups: Sequence[int]) -> dict[str, Any]:
    """Who a container's first process is, as its status says it. What is None is the agent's own."""
    own = os.getgroups() if uid is None and gid is None else groups
    group = os.getegid() if gid is None else gid
    return {
        'uid': os.geteuid() if uid is None else uid, 'gid': group,
        'supplementalGroups': list(dict.fromkeys((group, *own))),
    }  # fmt: skip


def check(security: Obj, can: Capabilities) -> None:
    """Raises RunError for wishes whose neglect would be a hole."""
    if (security.get('seccompProfile') or {}).get('type') == 'Localhost':
        raise RunError('seccompProfile Localhost: this node applies no seccomp profiles')
    if (security.get('appArmorProfile') or {}).get('type') == 'Localhost':
        raise RunError('appArmorProfile Localhost: this node applies no AppArmor profiles')
    if security.get('seLinuxOptions'):
        raise RunError('seLinuxOptions: this node sets no SELinux labels')
    if security.get('procMount') == 'Unmasked':
        raise RunError('procMount Unmasked: containers see the proc of the node')
    if security.get('readOnlyRootFilesystem') and not can.isolates_fs:
        raise RunError('readOnlyRootFilesystem: this node cannot give containers a mount namespace')


def announcements(security: Obj, can: Capabilities) -> list[str]:
    """What is not enforced although the spec asks for the usual, or only takes access away, for an event."""
    asked = [
        k for k in ('seccompProfile', 'appArmorProfile') if (security.get(k) or {}).get('type') == 'RuntimeDefault'
    ]
    found = [f'{k} RuntimeDefault is not enforced: containers of this node are host processes' for k in asked]
    strange = set(_groups(security)) - {os.getegid(), *os.getgroups()}
    if strange and not can.change_user:
        names = ', '.join(map(str, sorted(strange)))
        found.append(f'groups {names} are not given to containers: this node agent is not privileged to change groups')
    return found


def forbidden_sysctl(pod: Obj) -> Verdict | None:
    """Sysctls belong to namespaces that the pods of this node share with it: none is allowed."""
    for sysctl in (pod['spec'].get('securityContext') or {}).get('sysctls') or ():
        text = f'forbidden sysctl: "{sysctl["name"]}" not allowlisted'
        return Verdict('SysctlForbidden', f'Pod was rejected: {text}')
    return None
