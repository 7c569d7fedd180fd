"""The checks of the levels baseline and restricted. Pure; one function a rule, upstream's sentences.

Source: k8s.io/pod-security-admission/policy/check_*.go, Pod Security Standards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Obj = dict[str, Any]
Level = Literal['privileged', 'baseline', 'restricted']
LEVELS: tuple[Level, ...] = ('privileged', 'baseline', 'restricted')


@dataclass(frozen=True, slots=True)
class Violation:
    """`reason` names the rule, `detail` who breaks it."""

    reason: str
    detail: str

    def __str__(self) -> str:
        return f'{self.reason} ({self.detail})'


Version = tuple[int, int]
LATEST: Version = (1 << 16, 0)
NEVER: Version = (1 << 17, 0)
WINDOWS_KNOWN: Version = (1, 25)
"""From here on pods of Windows need not set what only Linux has."""
_VERSION = re.compile(r'v1\.(0|[1-9][0-9]*)')
Check = Callable[[Obj, Obj, Version], 'Violation | None']
"""(metadata, spec, version of the standards) of a pod or a template."""


def version_of(text: str) -> Version | None:
    """`latest` or `v1.25`; None for anything else."""
    if text == 'latest':
        return LATEST
    found = _VERSION.fullmatch(text)
    return (1, int(found[1])) if found else None


CAPABILITIES = frozenset({
    'AUDIT_WRITE', 'CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'KILL', 'MKNOD', 'NET_BIND_SERVICE', 'SETFCAP',
    'SETGID', 'SETPCAP', 'SETUID', 'SYS_CHROOT',
})  # fmt: skip
SELINUX_TYPES: dict[str, Version] = {
    '': (1, 0), 'container_t': (1, 0), 'container_init_t': (1, 0), 'container_kvm_t': (1, 0),
    'container_engine_t': (1, 31),
}  # fmt: skip
"""Since when each is allowed."""
SYSCTLS: dict[str, Version] = {
    'kernel.shm_rmid_forced': (1, 0), 'net.ipv4.ip_local_port_range': (1, 0), 'net.ipv4.tcp_syncookies': (1, 0),
    'net.ipv4.ping_group_range': (1, 0), 'net.ipv4.ip_unprivileged_port_start': (1, 0),
    'net.ipv4.ip_local_reserved_ports': (1, 27), 'net.ipv4.tcp_keepalive_time': (1, 29),
    'net.ipv4.tcp_fin_timeout': (1, 29), 'net.ipv4.tcp_keepalive_intvl': (1, 29),
    'net.ipv4.tcp_keepalive_probes': (1, 29), 'net.ipv4.tcp_rmem': (1, 32), 'net.ipv4.tcp_wmem': (1, 32),
}  # fmt: skip
VOLUMES = frozenset({
    'configMap', 'csi', 'downwardAPI', 'emptyDir', 'ephemeral', 'persistentVolumeClaim', 'projected', 'secret',
})  # fmt: skip
SECCOMP = frozenset({'RuntimeDefault', 'Localhost'})
APPARMOR_PREFIX = 'container.apparmor.security.beta.kubernetes.io/'


def containers(spec: Obj) -> Iterator[Obj]:
    for field in ('initContainers', 'containers', 'ephemeralContainers'):
        yield from spec.get(field) or ()


def context(thing: Obj) -> Obj:
    return thing.get('securityContext') or {}


def named(found: Sequence[Obj]) -> str:
    names = ', '.join(f'"{c.get("name", "")}"' for c in found)
    return f'{"containers" if len(found) > 1 else "container"} {names}'


def quoted(values: set[str] | Sequence[str]) -> str:
    return ', '.join(f'"{v}"' for v in sorted(set(values)))


def host_namespaces(_: Obj, spec: Obj, __: Version) -> Violation | None:
    used = [f'{field}=true' for field in ('hostNetwork', 'hostPID', 'hostIPC') if spec.get(field)]
    return Violation('host namespaces', ', '.join(used)) if used else None


def host_process(_: Obj, spec: Obj, __: Version) -> Violation | None:
    found = [c for c in containers(spec) if (context(c).get('windowsOptions') or {}).get('hostProcess')]
    pod = (context(spec).get('windowsOptions') or {}).get('hostProcess')
    who = [w for w in ('pod' if pod else '', named(found) if found else '') if w]
    if not who:
        return None
    return Violation('hostProcess', f'{" and ".join(who)} must not set securityContext.windowsOptions.hostProcess=true')


def privileged(_: Obj, spec: Obj, __: Version) -> Violation | None:
    found = [c for c in containers(spec) if context(c).get('privileged')]
    return Violation('privileged', f'{named(found)} must not set securityContext.privileged=true') if found else None


def capabilities(_: Obj, spec: Obj, __: Version) -> Violation | None:
    bad: set[str] = set()
    found = []
    for c in containers(spec):
        extra = set((context(c).get('capabilities') or {}).get('add') or ()) - CAPABILITIES
        if extra:
            found.append(c)
            bad |= extra
    if not found:
        return None
    return Violation(
        'non-default capabilities', f'{named(found)} must not include {quoted(bad)} in securityContext.capabilities.add'
    )


def host_path(_: Obj, spec: Obj, __: Version) -> Violation | None:
    found = [v.get('name', '') for v in spec.get('volumes') or () if v.get('hostPath') is not None]
    if not found:
        return None
    return Violation('hostPath volumes', f'{"volumes" if len(found) > 1 else "volume"} {quoted(found)}')


def host_ports(_: Obj, spec: Obj, __: Version) -> Violation | None:
    found, ports = [], set()
    for c in containers(spec):
        own = {str(p['hostPort']) for p in c.get('ports') or () if p.get('hostPort')}
        if own:
            found.append(c)
            ports |= own
    if not found:
        return None
    word = 'hostPorts' if len(ports) > 1 else 'hostPort'
    return Violation(
        'hostPort', f'{named(found)} {"use" if len(found) > 1 else "uses"} {word} {", ".join(sorted(ports))}'
    )


def apparmor(meta: Obj, spec: Obj, __: Version) -> Violation | None:
    bad = [
        f'{k}="{v}"'
        for k, v in sorted((meta.get('annotations') or {}).items())
        if k.startswith(APPARMOR_PREFIX) and v not in {'', 'runtime/default'} and not v.startswith('localhost/')
    ]
    if bad:
        return Violation(
            'forbidden AppArmor profiles' if len(bad) > 1 else 'forbidden AppArmor profile', ', '.join(bad)
        )
    for thing in (spec, *containers(spec)):
        kind = (context(thing).get('appArmorProfile') or {}).get('type')
        if kind == 'Unconfined':
            who = 'pod' if thing is spec else named([thing])
            return Violation('forbidden AppArmor profile', f'{who} must not set AppArmor profile type to "Unconfined"')
    return None


def selinux(_: Obj, spec: Obj, version: Version) -> Violation | None:
    faults: set[str] = set()
    for thing in (spec, *containers(spec)):
        options = context(thing).get('seLinuxOptions') or {}
        if SELINUX_TYPES.get(options.get('type', ''), NEVER) > version:
            faults.add(f'type {quoted([options["type"]])}')
        if options.get('user'):
            faults.add('user may not be set')
        if options.get('role'):
            faults.add('role may not be set')
    return (
        Violation('seLinuxOptions', f'pod set forbidden securityContext.seLinuxOptions: {"; ".join(sorted(faults))}')
        if faults
        else None
    )


def proc_mount(_: Obj, spec: Obj, __: Version) -> Violation | None:
    if spec.get('hostUsers') is False:
        return None
    found = [c for c in containers(spec) if context(c).get('procMount') not in {None, '', 'Default'}]
    if not found:
        return None
    values = quoted([context(c)['procMount'] for c in found])
    return Violation('procMount', f'{named(found)} must not set securityContext.procMount to {values}')


def seccomp_baseline(_: Obj, spec: Obj, __: Version) -> Violation | None:
    def unconfined(thing: Obj) -> bool:
        return (context(thing).get('seccompProfile') or {}).get('type') == 'Unconfined'

    found = [c for c in containers(spec) if unconfined(c)]
    who = [w for w in ('pod' if unconfined(spec) else '', named(found) if found else '') if w]
    if not who:
        return None
    return Violation(
        'seccompProfile', f'{" and ".join(who)} must not set securityContext.seccompProfile.type to "Unconfined"'
    )


def sysctls(_: Obj, spec: Obj, version: Version) -> Violation | None:
    bad = [
        s.get('name', '') for s in context(spec).get('sysctls') or () if SYSCTLS.get(s.get('name', ''), NEVER) > version
    ]
    return Violation('forbidden sysctls', ', '.join(bad)) if bad else None


def volume_types(_: Obj, spec: Obj, __: Version) -> Violation | None:
    bad = [
        (v.get('name', ''), kind)
        for v in spec.get('volumes') or ()
        for kind in v
        if kind != 'name' and kind not in VOLUMES
    ]
    if not bad:
        return None
    word = 'volumes' if len(bad) > 1 else 'volume'
    kinds = 'types' if len({k for _, k in bad}) > 1 else 'type'
    return Violation(
        'restricted volume types',
        f'{word} {quoted([n for n, _ in bad])} uses restricted volume {kinds} {quoted([k for _, k in bad])}',
    )


def escalation(_: Obj, spec: Obj, version: Version) -> Violation | None:
    found = [c for c in containers(spec) if context(c).get('allowPrivilegeEscalation') is not False]
    if not found or _windows(spec, version):
        return None
    return Violation(
        'allowPrivilegeEscalation != false', f'{named(found)} must set securityContext.allowPrivilegeEscalation=false'
    )


def _windows(spec: Obj, version: Version) -> bool:
    return version >= WINDOWS_KNOWN and (spec.get('os') or {}).get('name') == 'windows'


def non_root(_: Obj, spec: Obj, __: Version) -> Violation | None:
    everyone = list(containers(spec))
    explicit = [c for c in everyone if context(c).get('runAsNonRoot') is False]
    if explicit:
        return Violation('runAsNonRoot != true', f'{named(explicit)} must not set securityContext.runAsNonRoot=false')
    pod = context(spec).get('runAsNonRoot')
    lacking = [c for c in everyone if context(c).get('runAsNonRoot') is None] if pod is not True else []
    if pod is False and lacking:
        return Violation('runAsNonRoot != true', 'pod must not set securityContext.runAsNonRoot=false')
    if not lacking:
        return None
    return Violation('runAsNonRoot != true', f'pod or {named(lacking)} must set securityContext.runAsNonRoot=true')


def not_user_zero(_: Obj, spec: Obj, __: Version) -> Violation | None:
    found = [c for c in containers(spec) if context(c).get('runAsUser') == 0]
    who = [w for w in ('pod' if context(spec).get('runAsUser') == 0 else '', named(found) if found else '') if w]
    return Violation('runAsUser=0', f'{" and ".join(who)} must not set runAsUser=0') if who else None


def seccomp_restricted(_: Obj, spec: Obj, version: Version) -> Violation | None:
    if _windows(spec, version):
        return None

    def kind(thing: Obj) -> str | None:
        return (context(thing).get('seccompProfile') or {}).get('type')

    bad = [c for c in containers(spec) if kind(c) not in {None, *SECCOMP}]
    if bad:
        return Violation(
            'seccompProfile',
            f'{named(bad)} must not set securityContext.seccompProfile.type to {quoted([str(kind(c)) for c in bad])}',
        )
    pod = kind(spec)
    lacking = [c for c in containers(spec) if kind(c) is None] if pod not in SECCOMP else []
    if not lacking:
        return None
    return Violation(
        'seccompProfile',
        f'pod or {named(lacking)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"',
    )


def drop_all(_: Obj, spec: Obj, version: Version) -> Violation | None:
    if _windows(spec, version):
        return None

    def of(c: Obj, side: str) -> list[str]:
        return list((context(c).get('capabilities') or {}).get(side) or ())

    lacking = [c for c in containers(spec) if 'ALL' not in of(c, 'drop')]
    adding = [c for c in containers(spec) if set(of(c, 'add')) - {'NET_BIND_SERVICE'}]
    parts = []
    if lacking:
        parts.append(f'{named(lacking)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        bad = {x for c in adding for x in of(c, 'add')} - {'NET_BIND_SERVICE'}
        parts.append(f'{named(adding)} must not include {quoted(bad)} in securityContext.capabilities.add')
    return Violation('unrestricted capabilities', '; '.join(parts)) if parts else None


BASELINE: dict[Check, Version] = {
    apparmor: (1, 0), capabilities: (1, 0), host_namespaces: (1, 0), host_path: (1, 0), host_ports: (1, 0),
    host_process: (1, 0), privileged: (1, 0), proc_mount: (1, 0), seccomp_baseline: (1, 0), selinux: (1, 0),
    sysctls: (1, 0),
}  # fmt: skip
"""Each check, and the version of the standards that brought it."""
RESTRICTED: dict[Check, Version] = {
    escalation: (1, 8), drop_all: (1, 22), volume_types: (1, 0), non_root: (1, 0), not_user_zero: (1, 23),
    seccomp_restricted: (1, 19),
}  # fmt: skip
_REPLACES: dict[Check, Check] = {drop_all: capabilities, seccomp_restricted: seccomp_baseline, volume_types: host_path}
"""Checks of restricted that say more strictly what one of baseline says."""


def violations(level: Level, version: Version, meta: Obj, spec: Obj) -> list[Violation]:
    if level == 'privileged':
        return []
    stricter = [c for c, since in RESTRICTED.items() if since <= version] if level == 'restricted' else []
    replaced = {_REPLACES[c] for c in stricter if c in _REPLACES}
    checks = [*(c for c in BASELINE if c not in replaced), *stricter]
    return [found for check in checks if (found := check(meta, spec, version)) is not None]
