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
LATEST: Version = (1, 33)
"""What `latest` means: the standards of the release whose API is served. Who names a later one gets that."""
NEVER: Version = (1 << 16, 0)
WINDOWS_KNOWN: Version = (1, 25)
"""From here on pods of Windows need not set what only Linux has."""
USER_NAMESPACES_KNOWN: Version = (1, 35)
"""From here on root in a user namespace is nobody outside."""
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
    'net.ipv4.tcp_slow_start_after_idle': (1, 37), 'net.ipv4.tcp_notsent_lowat': (1, 37),
}  # fmt: skip
VOLUMES = frozenset({
    'configMap', 'csi', 'downwardAPI', 'emptyDir', 'ephemeral', 'image', 'persistentVolumeClaim', 'projected', 'secret',
})  # fmt: skip
PROFILES = frozenset({'RuntimeDefault', 'Localhost'})
"""Of seccomp and AppArmor."""
SECCOMP_FIELD: Version = (1, 19)
SECCOMP_NOTE = 'seccomp.security.alpha.kubernetes.io/'
APPARMOR_PREFIX = 'container.apparmor.security.beta.kubernetes.io/'


def containers(spec: Obj) -> Iterator[Obj]:
    for field in ('initContainers', 'containers', 'ephemeralContainers'):
        yield from spec.get(field) or ()


def context(thing: Obj) -> Obj:
    return thing.get('securityContext') or {}


def named(found: Sequence[Obj]) -> str:
    names = ', '.join(f'"{c.get("name", "")}"' for c in found)
    return f'{"containers" if len(found) > 1 else "container"} {names}'


def setters(thing: Obj, bad: Callable[[Obj], bool]) -> str:
    """`pod and container "c"`: whose security context is bad; '' when nobody's is."""
    found = [c for c in containers(thing) if bad(context(c))]
    return ' and '.join([*(['pod'] if bad(context(thing)) else []), *([named(found)] if found else [])])


def quoted(values: set[str] | Sequence[str]) -> str:
    return ', '.join(f'"{v}"' for v in sorted(set(values)))


def host_namespaces(_: Obj, spec: Obj, __: Version) -> Violation | None:
    used = [f'{field}=true' for field in ('hostNetwork', 'hostPID', 'hostIPC') if spec.get(field)]
    return Violation('host namespaces', ', '.join(used)) if used else None


def host_process(_: Obj, spec: Obj, __: Version) -> Violation | None:
    who = setters(spec, lambda own: bool((own.get('windowsOptions') or {}).get('hostProcess')))
    if not who:
        return None
    return Violation('hostProcess', f'{who} must not set securityContext.windowsOptions.hostProcess=true')


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


def _using(spec: Obj, of: Callable[[Obj], set[str]]) -> tuple[list[Obj], set[str]]:
    """The containers of which `of` finds something, and all that it finds."""
    found = [(c, own) for c in containers(spec) if (own := of(c))]
    return [c for c, _ in found], set().union(*(own for _, own in found))


def host_ports(_: Obj, spec: Obj, __: Version) -> Violation | None:
    def taken(c: Obj) -> set[str]:
        return {str(p['hostPort']) for p in c.get('ports') or () if p.get('hostPort')}

    found, ports = _using(spec, taken)
    if not found:
        return None
    word = 'hostPorts' if len(ports) > 1 else 'hostPort'
    return Violation(
        'hostPort', f'{named(found)} {"use" if len(found) > 1 else "uses"} {word} {", ".join(sorted(ports))}'
    )


def host_probes(_: Obj, spec: Obj, __: Version) -> Violation | None:
    def asked(c: Obj) -> set[str]:
        hooks = c.get('lifecycle') or {}
        probes = (c.get(kind) for kind in ('livenessProbe', 'readinessProbe', 'startupProbe'))
        handlers = [h for h in (*probes, hooks.get('postStart'), hooks.get('preStop')) if h]
        return {
            host for h in handlers for kind in ('httpGet', 'tcpSocket') if (host := (h.get(kind) or {}).get('host'))
        }

    found, hosts = _using(spec, asked)
    if not found:
        return None
    use = 'use' if len(found) > 1 else 'uses'
    word = 'probe or lifecycle hosts' if len(hosts) > 1 else 'probe or lifecycle host'
    who = named(sorted(found, key=lambda c: str(c.get('name'))))
    return Violation('probe or lifecycle host', f'{who} {use} {word} {quoted(hosts)}')


def apparmor(meta: Obj, spec: Obj, __: Version) -> Violation | None:
    def kind(own: Obj) -> str | None:
        return (own.get('appArmorProfile') or {}).get('type')

    who = setters(spec, lambda own: kind(own) not in {None, *PROFILES})
    values = sorted({str(k) for t in (spec, *containers(spec)) if (k := kind(context(t))) not in {None, *PROFILES}})
    notes = [
        f'{k}="{v}"'
        for k, v in sorted((meta.get('annotations') or {}).items())
        if k.startswith(APPARMOR_PREFIX) and v not in {'', 'runtime/default'} and not v.startswith('localhost/')
    ]
    if notes:
        who = ' and '.join(filter(None, (who, 'annotations' if len(notes) > 1 else 'annotation')))
        values += notes
    if not who:
        return None
    reason = 'forbidden AppArmor profiles' if len(values) > 1 else 'forbidden AppArmor profile'
    listed = ', '.join(f'"{v}"' for v in values)
    return Violation(reason, f'{who} must not set AppArmor profile type to {listed}')


def selinux(_: Obj, spec: Obj, version: Version) -> Violation | None:
    def options(own: Obj) -> Obj:
        return own.get('seLinuxOptions') or {}

    def unknown(own: Obj) -> str:
        kind = str(options(own).get('type') or '')
        return kind if SELINUX_TYPES.get(kind, NEVER) > version else ''

    who = setters(spec, lambda own: bool(unknown(own) or options(own).get('user') or options(own).get('role')))
    if not who:
        return None
    contexts = [context(thing) for thing in (spec, *containers(spec))]
    types = {kind for own in contexts if (kind := unknown(own))}
    faults = [f'{"types" if len(types) > 1 else "type"} {quoted(types)}'] if types else []
    faults += [f'{f} may not be set' for f in ('user', 'role') if any(options(own).get(f) for own in contexts)]
    return Violation('seLinuxOptions', f'{who} set forbidden securityContext.seLinuxOptions: {"; ".join(faults)}')


def proc_mount(_: Obj, spec: Obj, version: Version) -> Violation | None:
    return None if _own_users(spec, version) else proc_mount_restricted({}, spec, version)


def proc_mount_restricted(_: Obj, spec: Obj, __: Version) -> Violation | None:
    found = [c for c in containers(spec) if context(c).get('procMount') not in {None, '', 'Default'}]
    if not found:
        return None
    values = quoted([context(c)['procMount'] for c in found])
    return Violation('procMount', f'{named(found)} must not set securityContext.procMount to {values}')


def _own_users(spec: Obj, version: Version) -> bool:
    return version >= USER_NAMESPACES_KNOWN and spec.get('hostUsers') is False


def seccomp_baseline(meta: Obj, spec: Obj, version: Version) -> Violation | None:
    return _seccomp_notes(meta, spec) if version < SECCOMP_FIELD else _bad_seccomp(spec)


def _seccomp_notes(meta: Obj, spec: Obj) -> Violation | None:
    """Before there was a field, annotations told it."""
    keys = [f'{SECCOMP_NOTE}pod', *(f'container.{SECCOMP_NOTE}{c.get("name")}' for c in containers(spec))]
    notes = meta.get('annotations') or {}
    fine = ('runtime/default', 'docker/default')
    bad = sorted(
        f'{k}="{v}"' for k in keys if (v := notes.get(k, fine[0])) not in fine and not v.startswith('localhost/')
    )
    if not bad:
        return None
    word = 'annotations' if len(bad) > 1 else 'annotation'
    return Violation('seccompProfile', f'forbidden {word} {", ".join(bad)}')


def _seccomp(own: Obj) -> str | None:
    return (own.get('seccompProfile') or {}).get('type')


def _bad_seccomp(spec: Obj) -> Violation | None:
    who = setters(spec, lambda own: _seccomp(own) not in {None, *PROFILES})
    if not who:
        return None
    kinds = [_seccomp(context(thing)) for thing in (spec, *containers(spec))]
    values = quoted({str(k) for k in kinds if k not in {None, *PROFILES}})
    return Violation('seccompProfile', f'{who} must not set securityContext.seccompProfile.type to {values}')


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
    word, use = ('volumes', 'use') if len(bad) > 1 else ('volume', 'uses')
    kinds = 'types' if len({k for _, k in bad}) > 1 else 'type'
    return Violation(
        'restricted volume types',
        f'{word} {quoted([n for n, _ in bad])} {use} restricted volume {kinds} {quoted([k for _, k in bad])}',
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


def non_root(_: Obj, spec: Obj, version: Version) -> Violation | None:
    if _own_users(spec, version):
        return None
    if who := setters(spec, lambda own: own.get('runAsNonRoot') is False):
        return Violation('runAsNonRoot != true', f'{who} must not set securityContext.runAsNonRoot=false')
    lacking = [c for c in containers(spec) if context(c).get('runAsNonRoot') is None]
    if not lacking or context(spec).get('runAsNonRoot'):
        return None
    return Violation('runAsNonRoot != true', f'pod or {named(lacking)} must set securityContext.runAsNonRoot=true')


def not_user_zero(_: Obj, spec: Obj, version: Version) -> Violation | None:
    who = '' if _own_users(spec, version) else setters(spec, lambda own: own.get('runAsUser') == 0)
    return Violation('runAsUser=0', f'{who} must not set runAsUser=0') if who else None


def seccomp_restricted(_: Obj, spec: Obj, version: Version) -> Violation | None:
    if _windows(spec, version):
        return None
    if bad := _bad_seccomp(spec):
        return bad
    lacking = [c for c in containers(spec) if _seccomp(context(c)) is None]
    if not lacking or _seccomp(context(spec)) is not None:
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
    host_probes: (1, 34), host_process: (1, 0), privileged: (1, 0), proc_mount: (1, 0), seccomp_baseline: (1, 0),
    selinux: (1, 0), sysctls: (1, 0),
}  # fmt: skip
"""Each check, and the version of the standards that brought it."""
RESTRICTED: dict[Check, Version] = {
    escalation: (1, 8), drop_all: (1, 22), volume_types: (1, 0), non_root: (1, 0), not_user_zero: (1, 23),
    seccomp_restricted: (1, 19), proc_mount_restricted: (1, 35),
}  # fmt: skip
_REPLACES: dict[Check, Check] = {
    drop_all: capabilities, seccomp_restricted: seccomp_baseline, volume_types: host_path,
    proc_mount_restricted: proc_mount,
}  # fmt: skip
"""Checks of restricted that say more strictly what one of baseline says."""


def violations(level: Level, version: Version, meta: Obj, spec: Obj) -> list[Violation]:
    if level == 'privileged':
        return []
    stricter = [c for c, since in RESTRICTED.items() if since <= version] if level == 'restricted' else []
    replaced = {_REPLACES[c] for c in stricter if c in _REPLACES}
    checks = [*(c for c, since in BASELINE.items() if since <= version and c not in replaced), *stricter]
    return [found for check in checks if (found := check(meta, spec, version)) is not None]
