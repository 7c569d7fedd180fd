"""422 rules of one container. Source: pkg/apis/core/validation/validation.go (validateContainerCommon and below)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kapi.kinds.rules import (
    between,
    complaints,
    dns_name,
    duplicate,
    duplicates,
    forbidden,
    invalid,
    not_found,
    not_negative,
    one_of,
    quantity,
    required,
)  # fmt: skip
from kapi.registry.strategy import Invalid
from kcore.meta import names
from kcore.meta.quantity import QuantityError, parse

Obj = dict[str, Any]

PULL_POLICIES = ('Always', 'IfNotPresent', 'Never')
PROTOCOLS = ('SCTP', 'TCP', 'UDP')
MESSAGE_POLICIES = ('FallbackToLogsOnError', 'File')
STANDARD_RESOURCES = ('cpu', 'memory', 'ephemeral-storage')
ENV_SOURCES = ('fieldRef', 'resourceFieldRef', 'configMapKeyRef', 'secretKeyRef')
ENV_FIELD_PATHS = (
    'metadata.name', 'metadata.namespace', 'metadata.uid', 'spec.nodeName', 'spec.serviceAccountName',
    'status.hostIP', 'status.hostIPs', 'status.podIP', 'status.podIPs',
)  # fmt: skip
RECURSIVE_READ_ONLY = ('Disabled', 'Enabled', 'IfPossible')
HANDLERS = ('exec', 'httpGet', 'tcpSocket', 'grpc', 'sleep')
SCHEMES = ('HTTP', 'HTTPS')


def container(at: str, c: Obj, volumes: Mapping[str, Obj], *, init: bool = False) -> Iterator[Invalid]:
    """Everything but the uniqueness of names across containers."""
    sidecar = init and c.get('restartPolicy') == 'Always'
    yield from dns_name(f'{at}.name', c.get('name'), names.dns_label)
    image = c.get('image')
    if not image:
        yield required(f'{at}.image')
    elif image != image.strip():
        yield invalid(f'{at}.image', image, 'must not have leading or trailing whitespace')
    yield from one_of(f'{at}.imagePullPolicy', c.get('imagePullPolicy'), PULL_POLICIES)
    yield from one_of(f'{at}.terminationMessagePolicy', c.get('terminationMessagePolicy'), MESSAGE_POLICIES)
    yield from _restart_policy(at, c, init)
    yield from ports(f'{at}.ports', c.get('ports') or ())
    yield from environment(at, c)
    yield from _mounts(at, c, volumes)
    yield from resources(f'{at}.resources', c.get('resources') or {})
    yield from _probes(at, c, init=init, sidecar=sidecar)
    yield from _security(f'{at}.securityContext', c.get('securityContext') or {})


def _restart_policy(at: str, c: Obj, init: bool) -> Iterator[Invalid]:
    policy = c.get('restartPolicy')
    if policy is None:
        return
    if not init:
        yield forbidden(f'{at}.restartPolicy', 'may not be set for non-init containers')
    else:
        yield from one_of(f'{at}.restartPolicy', policy, ('Always',))


def ports(at: str, items: Sequence[Obj]) -> Iterator[Invalid]:
    yield from duplicates(at, items, 'name')
    for i, port in enumerate(items):
        if port.get('name'):
            yield from complaints(f'{at}[{i}].name', port['name'], names.port_name(port['name']))
        number = port.get('containerPort') or 0
        if number == 0:
            yield required(f'{at}[{i}].containerPort')
        else:
            yield from complaints(f'{at}[{i}].containerPort', number, names.port_number(number))
        if port.get('hostPort'):
            yield from complaints(f'{at}[{i}].hostPort', port['hostPort'], names.port_number(port['hostPort']))
        yield from one_of(f'{at}[{i}].protocol', port.get('protocol'), PROTOCOLS)


def environment(at: str, c: Obj) -> Iterator[Invalid]:
    for i, env in enumerate(c.get('env') or ()):
        where = f'{at}.env[{i}]'
        name = env.get('name') or ''
        if not name:
            yield required(f'{where}.name')
        else:
            yield from complaints(f'{where}.name', name, names.env_name(name))
        if env.get('valueFrom') is not None:
            yield from _value_from(f'{where}.valueFrom', env)
    for i, source in enumerate(c.get('envFrom') or ()):
        where = f'{at}.envFrom[{i}]'
        if source.get('prefix'):
            yield from complaints(f'{where}.prefix', source['prefix'], names.env_name(source['prefix']))
        given = [field for field in ('configMapRef', 'secretRef') if source.get(field) is not None]
        if not given:
            yield invalid(where, '', 'must specify one of: `configMapRef` or `secretRef`')
        elif len(given) > 1:
            yield invalid(where, '', 'may not have more than one field specified at a time')
        for field in given:
            yield from dns_name(f'{where}.{field}.name', source[field].get('name'))


def _value_from(at: str, env: Obj) -> Iterator[Invalid]:
    source = env['valueFrom']
    given = [field for field in ENV_SOURCES if source.get(field) is not None]
    if not given:
        yield invalid(at, '', f'must specify one of: `{"`, `".join(ENV_SOURCES[:-1])}` or `{ENV_SOURCES[-1]}`')
    elif env.get('value'):
        yield invalid(at, '', 'may not be specified when `value` is not empty')
    elif len(given) > 1:
        yield invalid(at, '', 'may not have more than one field specified at a time')
    for field in given:
        where, ref = f'{at}.{field}', source[field]
        if field == 'fieldRef':
            yield from field_ref(where, ref, ENV_FIELD_PATHS)
        elif field == 'resourceFieldRef':
            if not ref.get('resource'):
                yield required(f'{where}.resource')
        else:
            yield from dns_name(f'{where}.name', ref.get('name'))
            if not ref.get('key'):
                yield required(f'{where}.key')
            else:
                yield from complaints(f'{where}.key', ref['key'], names.config_key(ref['key']))


def field_ref(at: str, ref: Obj, known: Sequence[str]) -> Iterator[Invalid]:
    """A downward API path; one label or annotation by `metadata.labels['key']`."""
    path = ref.get('fieldPath') or ''
    if not path:
        yield required(f'{at}.fieldPath')
        return
    base, bracket, key = path.partition("['")
    if bracket:
        if base not in {'metadata.labels', 'metadata.annotations'} or not key.endswith("']"):
            yield invalid(
                f'{at}.fieldPath', path, f'error converting fieldPath: field label does not support subscript: {path}'
            )
        else:
            yield from complaints(at, key[:-2], names.label_key(key[:-2].lower()))
    elif path not in known:
        yield not_supported_path(f'{at}.fieldPath', path, known)


def not_supported_path(at: str, path: str, known: Sequence[str]) -> Invalid:
    supported = ', '.join(f'"{k}"' for k in sorted(known))
    return Invalid(at, f'Unsupported value: "{path}": supported values: {supported}', 'FieldValueNotSupported')


def _mounts(at: str, c: Obj, volumes: Mapping[str, Obj]) -> Iterator[Invalid]:
    paths: set[str] = set()
    for i, mount in enumerate(c.get('volumeMounts') or ()):
        where = f'{at}.volumeMounts[{i}]'
        name, path = mount.get('name') or '', mount.get('mountPath') or ''
        if not name:
            yield required(f'{where}.name')
        elif name not in volumes:
            yield not_found(f'{where}.name', name)
        if not path:
            yield required(f'{where}.mountPath')
        if path in paths:
            yield invalid(f'{where}.mountPath', path, 'must be unique')
        paths.add(path)
        for field in ('subPath', 'subPathExpr'):
            sub = mount.get(field)
            if sub and sub.startswith('/'):
                yield invalid(f'{where}.{field}', sub, 'must be a relative path')
            if sub and '..' in sub.split('/'):
                yield invalid(f'{where}.{field}', sub, "must not contain '..'")
        if mount.get('subPath') and mount.get('subPathExpr'):
            yield invalid(
                f'{where}.subPathExpr', mount['subPathExpr'], 'subPathExpr and subPath are mutually exclusive'
            )
        yield from _recursive(f'{where}.recursiveReadOnly', mount)
    for i, device in enumerate(c.get('volumeDevices') or ()):
        if not device.get('name'):
            yield required(f'{at}.volumeDevices[{i}].name')
        if not device.get('devicePath'):
            yield required(f'{at}.volumeDevices[{i}].devicePath')


def _recursive(at: str, mount: Obj) -> Iterator[Invalid]:
    """Source: pkg/apis/core/validation validateMountRecursiveReadOnly."""
    value = mount.get('recursiveReadOnly')
    yield from one_of(at, value, RECURSIVE_READ_ONLY, need=False)
    if value not in {'Enabled', 'IfPossible'}:
        return
    if not mount.get('readOnly'):
        yield forbidden(at, 'may only be specified when readOnly is true')
    if mount.get('mountPropagation') not in {None, 'None'}:
        yield forbidden(at, 'may only be specified when mountPropagation is None or not specified')


def resources(at: str, value: Obj) -> Iterator[Invalid]:
    limits, requests = value.get('limits') or {}, value.get('requests') or {}
    for kind, amounts in (('limits', limits), ('requests', requests)):
        for name, amount in amounts.items():
            where = f'{at}.{kind}[{name}]'
            yield from complaints(f'{at}.{kind}', name, resource_name(name))
            yield from quantity(where, amount)
    for name, amount in requests.items():
        limit = limits.get(name)
        try:
            more = limit is not None and parse(amount) > parse(limit)
            differs = limit is not None and parse(amount) != parse(limit)
        except QuantityError:
            continue
        if more:
            yield invalid(f'{at}.requests', str(amount), f'must be less than or equal to {name} limit of {limit}')
        elif differs and _no_overcommit(name):
            yield invalid(f'{at}.requests', str(amount), f'must be equal to {name} limit of {limit}')
        elif limit is None and _no_overcommit(name):
            yield required(f'{at}.limits', 'Limit must be set for non overcommitable resources')


def _no_overcommit(name: str) -> bool:
    return name.startswith('hugepages-') or ('/' in name and 'kubernetes.io/' not in name)


def resource_name(name: str) -> names.Complaints:
    found = names.label_key(name)
    if found or '/' in name or name in STANDARD_RESOURCES or name.startswith('hugepages-'):
        return found
    return ('must be a standard resource for containers',)


def _probes(at: str, c: Obj, *, init: bool, sidecar: bool) -> Iterator[Invalid]:
    if init and not sidecar:
        for field in ('lifecycle', 'livenessProbe', 'readinessProbe', 'startupProbe'):
            if c.get(field) is not None:
                yield forbidden(f'{at}.{field}', 'may not be set for init containers without restartPolicy=Always')
        return
    for field in ('livenessProbe', 'readinessProbe', 'startupProbe'):
        if isinstance(c.get(field), dict):
            yield from probe(f'{at}.{field}', c[field], must_succeed_once=field != 'readinessProbe')
    for name, hook in (c.get('lifecycle') or {}).items():
        if isinstance(hook, dict):
            yield from handler(f'{at}.lifecycle.{name}', hook)


def probe(at: str, p: Obj, *, must_succeed_once: bool) -> Iterator[Invalid]:
    yield from handler(at, p)
    for field in ('initialDelaySeconds', 'timeoutSeconds', 'periodSeconds', 'successThreshold', 'failureThreshold'):
        yield from not_negative(f'{at}.{field}', p.get(field))
    grace = p.get('terminationGracePeriodSeconds')
    if grace is not None and grace <= 0:
        yield invalid(f'{at}.terminationGracePeriodSeconds', grace, 'must be greater than 0')
    if grace is not None and not must_succeed_once:
        yield invalid(f'{at}.terminationGracePeriodSeconds', grace, 'must not be set for readinessProbes')
    if must_succeed_once and p.get('successThreshold', 1) != 1:
        yield invalid(f'{at}.successThreshold', p['successThreshold'], 'must be 1')


def handler(at: str, h: Obj) -> Iterator[Invalid]:
    given = [field for field in HANDLERS if h.get(field) is not None]
    if not given:
        yield required(at, 'must specify a handler type')
    for field in given[1:]:
        yield forbidden(f'{at}.{field}', 'may not specify more than 1 handler type')
    for field in given[:1]:
        action, where = h[field], f'{at}.{field}'
        if field == 'exec' and not action.get('command'):
            yield required(f'{where}.command')
        if field in {'httpGet', 'tcpSocket'}:
            yield from port_ref(f'{where}.port', action.get('port', 0))
        if field == 'httpGet':
            yield from one_of(f'{where}.scheme', action.get('scheme'), SCHEMES)
        if field == 'grpc':
            number = action.get('port') or 0
            yield from complaints(f'{where}.port', number, names.port_number(number))
        if field == 'sleep':
            yield from not_negative(f'{where}.seconds', action.get('seconds'))


def port_ref(at: str, port: Any) -> Iterator[Invalid]:
    """A port by number or name."""
    if isinstance(port, int):
        yield from complaints(at, port, names.port_number(port))
    else:
        yield from complaints(at, port, names.port_name(port))


def _security(at: str, context: Obj) -> Iterator[Invalid]:
    for field in ('runAsUser', 'runAsGroup'):
        yield from between(f'{at}.{field}', context.get(field), 0, 2**31 - 1)
    if context.get('allowPrivilegeEscalation') is False:
        added = (context.get('capabilities') or {}).get('add') or ()
        if context.get('privileged'):
            yield invalid(at, context, 'cannot set `allowPrivilegeEscalation` to false and `privileged` to true')
        if 'CAP_SYS_ADMIN' in added:
            yield invalid(
                at, context, 'cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN'
            )


def host_ports(at: str, containers: Sequence[Obj], taken: set[tuple[Any, Any, Any]]) -> Iterator[Invalid]:
    """A host port may be asked for once in a pod."""
    for i, c in enumerate(containers):
        for j, port in enumerate(c.get('ports') or ()):
            number = port.get('hostPort')
            if not number:
                continue
            key = (port.get('protocol'), port.get('hostIP') or '', number)
            if key in taken:
                yield duplicate(f'{at}[{i}].ports[{j}].hostPort', '/'.join(map(str, key)))
            taken.add(key)
