"""422 rules of a pod spec, alone and as part of a template. Source: pkg/apis/core/validation/validation.go."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from kapi.kinds.core import container_rules
from kapi.kinds.core.volume_rules import volumes as volume_rules
from kapi.kinds.rules import (
    between,
    complaints,
    dns_name,
    duplicate,
    forbidden,
    immutable,
    invalid,
    label_selector,
    labels,
    not_negative,
    one_of,
    required,
)  # fmt: skip
from kapi.registry.strategy import Invalid
from kcore.meta import names
from kcore.meta.objects import Obj

SYSCTL = re.compile(r'([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?')
SYSCTL_CHARS_MAX = 253
RESTART_POLICIES = ('Always', 'Never', 'OnFailure')
DNS_POLICIES = ('ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None')
EFFECTS = ('NoExecute', 'NoSchedule', 'PreferNoSchedule')
MAX_DEADLINE_S = 2**31 - 1
_UPDATABLE = (
    'pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,'
    '`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),'
    '`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)'
)


def template(at: str, value: Any, *, restart: Sequence[str] = ('Always',)) -> Iterator[Invalid]:
    """A PodTemplateSpec of a workload; `restart` are the policies that the workload allows."""
    if not isinstance(value, dict) or not value:
        yield required(at)
        return
    metadata = value.get('metadata') or {}
    yield from labels(f'{at}.labels', metadata.get('labels'))
    for key in metadata.get('annotations') or {}:
        yield from complaints(f'{at}.annotations', key, names.label_key(key.lower()))
    spec = value.get('spec') or {}
    yield from pod_spec(f'{at}.spec', spec)
    policy = spec.get('restartPolicy')
    if policy in RESTART_POLICIES and policy not in restart:
        supported = ', '.join(f'"{r}"' for r in sorted(restart))
        yield Invalid(
            f'{at}.spec.restartPolicy',
            f'Unsupported value: "{policy}": supported values: {supported}',
            'FieldValueNotSupported',
        )
    if spec.get('activeDeadlineSeconds') is not None and tuple(restart) == ('Always',):
        yield forbidden(f'{at}.spec.activeDeadlineSeconds', 'activeDeadlineSeconds in ReplicaSet is not Supported')
    if spec.get('ephemeralContainers'):
        yield forbidden(f'{at}.spec.ephemeralContainers', 'ephemeral containers not allowed in pod template')


def pod_spec(at: str, spec: Obj) -> Iterator[Invalid]:
    volumes = {v.get('name'): v for v in spec.get('volumes') or ()}
    yield from volume_rules(f'{at}.volumes', spec.get('volumes') or ())
    yield from _containers(at, spec, volumes)
    yield from one_of(f'{at}.restartPolicy', spec.get('restartPolicy'), RESTART_POLICIES)
    yield from one_of(f'{at}.dnsPolicy', spec.get('dnsPolicy'), DNS_POLICIES)
    if spec.get('dnsPolicy') == 'None' and not (spec.get('dnsConfig') or {}).get('nameservers'):
        yield required(
            f'{at}.dnsConfig.nameservers', 'must provide at least one DNS nameserver when `dnsPolicy` is None'
        )
    yield from not_negative(f'{at}.terminationGracePeriodSeconds', spec.get('terminationGracePeriodSeconds'))
    yield from between(f'{at}.activeDeadlineSeconds', spec.get('activeDeadlineSeconds'), 1, MAX_DEADLINE_S)
    yield from labels(f'{at}.nodeSelector', spec.get('nodeSelector'))
    yield from _names(at, spec)
    yield from tolerations(f'{at}.tolerations', spec.get('tolerations') or ())
    yield from _affinity(f'{at}.affinity', spec.get('affinity') or {})
    yield from _spread(f'{at}.topologySpreadConstraints', spec.get('topologySpreadConstraints') or ())
    for i, alias in enumerate(spec.get('hostAliases') or ()):
        ip = alias.get('ip') or ''
        yield from complaints(f'{at}.hostAliases[{i}].ip', ip, names.ip_address(ip))
        for j, host in enumerate(alias.get('hostnames') or ()):
            yield from complaints(f'{at}.hostAliases[{i}].hostnames[{j}]', host, names.dns_subdomain(host))
    for i, gate in enumerate(spec.get('readinessGates') or ()):
        kind = gate.get('conditionType') or ''
        yield from complaints(f'{at}.readinessGates[{i}].conditionType', kind, names.label_key(kind))
    seen: set[str] = set()
    for i, gate in enumerate(spec.get('schedulingGates') or ()):
        name = gate.get('name') or ''
        yield from complaints(f'{at}.schedulingGates[{i}]', name, names.label_key(name))
        if name in seen:
            yield duplicate(f'{at}.schedulingGates[{i}]', name)
        seen.add(name)


def _containers(at: str, spec: Obj, volumes: dict[Any, Obj]) -> Iterator[Invalid]:
    containers, init = spec.get('containers') or (), spec.get('initContainers') or ()
    if not containers:
        yield required(f'{at}.containers')
    seen: set[str] = set()
    for field, items in (('containers', containers), ('initContainers', init)):
        for i, c in enumerate(items):
            where = f'{at}.{field}[{i}]'
            yield from container_rules.container(where, c, volumes, init=field == 'initContainers')
            name = c.get('name') or ''
            if name and name in seen:
                yield duplicate(f'{where}.name', name)
            seen.add(name)
    yield from container_rules.host_ports(f'{at}.containers', containers, set())
    targets = {c.get('name') for c in (*containers, *init)}
    for i, c in enumerate(spec.get('ephemeralContainers') or ()):
        where = f'{at}.ephemeralContainers[{i}]'
        yield from ephemeral_container(where, c, volumes)
        name, target = c.get('name') or '', c.get('targetContainerName')
        if name and name in seen:
            yield duplicate(f'{where}.name', name)
        if target and target not in targets:
            yield Invalid(f'{where}.targetContainerName', f'Not found: "{target}"', 'FieldValueNotFound')
        seen.add(name)


def pod_ephemeral(new: Obj, old: Obj) -> Iterator[Invalid]:
    """What `pods/ephemeralcontainers` may do: add some."""
    if 'kubernetes.io/config.mirror' in (old['metadata'].get('annotations') or {}):
        yield forbidden('', 'static pods do not support ephemeral containers')
        return
    spec = new.get('spec') or {}
    yield from pod_spec('spec', spec)
    now = {c.get('name'): c for c in spec.get('ephemeralContainers') or ()}
    for was in (old.get('spec') or {}).get('ephemeralContainers') or ():
        if (name := was['name']) not in now:
            yield forbidden('spec.ephemeralContainers', f'existing ephemeral containers "{name}" may not be removed')
        elif now[name] != was:
            yield forbidden('spec.ephemeralContainers', f'existing ephemeral containers "{name}" may not be changed')


_NOT_EPHEMERAL = ('ports', 'livenessProbe', 'readinessProbe', 'startupProbe', 'lifecycle', 'resizePolicy')


def ephemeral_container(at: str, c: Obj, volumes: dict[Any, Obj]) -> Iterator[Invalid]:
    for field in _NOT_EPHEMERAL:
        if c.get(field):
            yield forbidden(f'{at}.{field}', 'cannot be set for an Ephemeral Container')
    if any((c.get('resources') or {}).values()):
        yield forbidden(f'{at}.resources', 'cannot be set for an Ephemeral Container')
    allowed = {k: v for k, v in c.items() if k not in _NOT_EPHEMERAL and k not in {'resources', 'targetContainerName'}}
    yield from container_rules.container(at, allowed, volumes)


def _names(at: str, spec: Obj) -> Iterator[Invalid]:
    if spec.get('serviceAccountName'):
        yield from dns_name(f'{at}.serviceAccountName', spec['serviceAccountName'])
    if spec.get('nodeName'):
        yield from dns_name(f'{at}.nodeName', spec['nodeName'])
    if spec.get('priorityClassName'):
        yield from dns_name(f'{at}.priorityClassName', spec['priorityClassName'])
    if spec.get('runtimeClassName'):
        yield from dns_name(f'{at}.runtimeClassName', spec['runtimeClassName'])
    for field in ('hostname', 'subdomain'):
        if spec.get(field):
            yield from complaints(f'{at}.{field}', spec[field], names.dns_label(spec[field]))
    for i, ref in enumerate(spec.get('imagePullSecrets') or ()):
        if not ref.get('name'):
            yield required(f'{at}.imagePullSecrets[{i}].name')
    context = spec.get('securityContext') or {}
    for field in ('runAsUser', 'runAsGroup', 'fsGroup'):
        yield from between(f'{at}.securityContext.{field}', context.get(field), 0, 2**31 - 1)
    yield from sysctls(f'{at}.securityContext.sysctls', context.get('sysctls') or ())


def sysctls(at: str, items: Sequence[Obj]) -> Iterator[Invalid]:
    seen = set()
    for i, sysctl in enumerate(items):
        name = sysctl.get('name') or ''
        if not name:
            yield required(f'{at}[{i}].name')
        elif len(name) > SYSCTL_CHARS_MAX or not SYSCTL.fullmatch(name):
            text = f'must have at most {SYSCTL_CHARS_MAX} characters and match regex ^{SYSCTL.pattern}$'
            yield invalid(f'{at}[{i}].name', name, text)
        elif name in seen:
            yield duplicate(f'{at}[{i}].name', name)
        seen.add(name)


def tolerations(at: str, items: Sequence[Obj]) -> Iterator[Invalid]:
    for i, t in enumerate(items):
        where = f'{at}[{i}]'
        key, operator, value = t.get('key') or '', t.get('operator') or 'Equal', t.get('value') or ''
        if key:
            yield from complaints(f'{where}.key', key, names.label_key(key))
        elif operator != 'Exists':
            yield invalid(f'{where}.operator', operator, "operator must be Exists when `key` is empty, which means "
                          '"match all values and all keys"')  # fmt: skip
        yield from one_of(f'{where}.operator', operator, ('Equal', 'Exists'))
        if operator == 'Exists' and value:
            yield invalid(f'{where}.operator', t, "value must be empty when `operator` is 'Exists'")
        elif operator == 'Equal':
            yield from complaints(f'{where}.operator', value, names.label_value(value))
        if t.get('tolerationSeconds') is not None and t.get('effect') != 'NoExecute':
            yield invalid(
                f'{where}.effect', t.get('effect') or '', "effect must be 'NoExecute' when `tolerationSeconds` is set"
            )
        yield from one_of(f'{where}.effect', t.get('effect'), EFFECTS, need=False)


def _affinity(at: str, affinity: Obj) -> Iterator[Invalid]:
    node = affinity.get('nodeAffinity') or {}
    hard = node.get('requiredDuringSchedulingIgnoredDuringExecution')
    if hard is not None:
        where = f'{at}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms'
        if not hard.get('nodeSelectorTerms'):
            yield required(where, 'must have at least one node selector term')
        for i, term in enumerate(hard.get('nodeSelectorTerms') or ()):
            yield from _node_term(f'{where}[{i}]', term)
    for i, preferred in enumerate(node.get('preferredDuringSchedulingIgnoredDuringExecution') or ()):
        where = f'{at}.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[{i}]'
        yield from _weight(where, preferred)
        yield from _node_term(f'{where}.preference', preferred.get('preference') or {})
    for kind in ('podAffinity', 'podAntiAffinity'):
        terms = affinity.get(kind) or {}
        field = 'requiredDuringSchedulingIgnoredDuringExecution'
        for i, term in enumerate(terms.get(field) or ()):
            yield from _pod_term(f'{at}.{kind}.{field}[{i}]', term)
        field = 'preferredDuringSchedulingIgnoredDuringExecution'
        for i, preferred in enumerate(terms.get(field) or ()):
            yield from _weight(f'{at}.{kind}.{field}[{i}]', preferred)
            yield from _pod_term(f'{at}.{kind}.{field}[{i}].podAffinityTerm', preferred.get('podAffinityTerm') or {})


def _weight(at: str, preferred: Obj) -> Iterator[Invalid]:
    weight = preferred.get('weight') or 0
    if not 1 <= weight <= 100:
        yield invalid(f'{at}.weight', weight, 'must be in the range 1-100')


def _node_term(at: str, term: Obj) -> Iterator[Invalid]:
    for i, e in enumerate(term.get('matchExpressions') or ()):
        where, operator, values = f'{at}.matchExpressions[{i}]', e.get('operator') or '', e.get('values') or ()
        if operator in {'In', 'NotIn'} and not values:
            yield required(f'{where}.values', "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in {'Exists', 'DoesNotExist'} and values:
            yield forbidden(f'{where}.values', "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif operator in {'Gt', 'Lt'} and len(values) != 1:
            yield required(f'{where}.values', "must be specified single value when `operator` is 'Lt' or 'Gt'")
        elif operator not in {'In', 'NotIn', 'Exists', 'DoesNotExist', 'Gt', 'Lt'}:
            yield invalid(f'{where}.operator', operator, 'not a valid selector operator')
        yield from complaints(f'{where}.key', e.get('key') or '', names.label_key(e.get('key') or ''))


def _pod_term(at: str, term: Obj) -> Iterator[Invalid]:
    yield from label_selector(f'{at}.labelSelector', term.get('labelSelector'))
    key = term.get('topologyKey') or ''
    if not key:
        yield required(f'{at}.topologyKey', 'can not be empty')
    yield from complaints(f'{at}.topologyKey', key, names.label_key(key))


def _spread(at: str, constraints: Sequence[Obj]) -> Iterator[Invalid]:
    seen: set[tuple[Any, Any]] = set()
    for i, c in enumerate(constraints):
        where = f'{at}[{i}]'
        if (c.get('maxSkew') or 0) <= 0:
            yield invalid(f'{where}.maxSkew', c.get('maxSkew') or 0, 'must be greater than zero')
        if not c.get('topologyKey'):
            yield required(f'{where}.topologyKey', 'can not be empty')
        yield from one_of(f'{where}.whenUnsatisfiable', c.get('whenUnsatisfiable'), ('DoNotSchedule', 'ScheduleAnyway'))
        yield from label_selector(f'{where}.labelSelector', c.get('labelSelector'))
        pair = (c.get('topologyKey'), c.get('whenUnsatisfiable'))
        if pair in seen:
            yield duplicate(f'{where}.{{topologyKey, whenUnsatisfiable}}', f'{{{pair[0]}, {pair[1]}}}')
        seen.add(pair)


def pod_update(new: Obj, old: Obj) -> Iterator[Invalid]:
    """What may change in `spec` of an existing pod: images, deadline (shorter), more tolerations, fewer gates."""
    spec, before = new.get('spec') or {}, old.get('spec') or {}
    yield from _same_number(spec, before)
    yield from _deadline(spec.get('activeDeadlineSeconds'), before.get('activeDeadlineSeconds'))
    kept = set(map(_but_for_seconds, spec.get('tolerations') or ()))
    if not kept.issuperset(map(_but_for_seconds, before.get('tolerations') or ())):
        yield forbidden('spec.tolerations', 'existing toleration can not be modified except its tolerationSeconds')
    gates = {g.get('name') for g in before.get('schedulingGates') or ()}
    for gate in spec.get('schedulingGates') or ():
        if gate.get('name') not in gates:
            yield forbidden(
                'spec.schedulingGates', f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            )
    changed = changed_paths(_comparable(before, gated=bool(gates)), _comparable(spec, gated=bool(gates)))
    if changed:
        yield forbidden('spec', f'{_UPDATABLE}\nchanged: {", ".join(changed)}')


def _same_number(spec: Obj, before: Obj) -> Iterator[Invalid]:
    for field in ('containers', 'initContainers'):
        if len(spec.get(field) or ()) != len(before.get(field) or ()):
            yield forbidden(f'spec.{field}', 'pod updates may not add or remove containers')
    yield from immutable('spec.ephemeralContainers', spec.get('ephemeralContainers'), before.get('ephemeralContainers'))


def _deadline(new: int | None, old: int | None) -> Iterator[Invalid]:
    if new is None and old is not None:
        yield invalid('spec.activeDeadlineSeconds', new, 'must not update from a positive integer to nil value')
    elif new is not None and old is not None and new > old:
        yield invalid('spec.activeDeadlineSeconds', new, f'must be less than or equal to previous value {old}')


def _but_for_seconds(toleration: Obj) -> frozenset[tuple[str, str]]:
    return frozenset((k, v) for k, v in toleration.items() if k != 'tolerationSeconds')


def _comparable(spec: Obj, *, gated: bool) -> Obj:
    """The part of a spec that may not change."""
    free = {'activeDeadlineSeconds', 'tolerations', 'schedulingGates', 'ephemeralContainers'}
    if gated:
        free |= {'nodeSelector', 'affinity'}
    kept = {k: v for k, v in spec.items() if k not in free}
    if (kept.get('terminationGracePeriodSeconds') or 0) == 1:
        kept.pop('terminationGracePeriodSeconds')
    for field in ('containers', 'initContainers'):
        if field in kept:
            kept[field] = [{k: v for k, v in c.items() if k != 'image'} for c in kept[field]]
    return kept


def changed_paths(old: Any, new: Any, at: str = 'spec') -> list[str]:
    """Dotted paths at which two values differ, the deepest that can be named."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return [p for k in sorted({*old, *new}) for p in changed_paths(old.get(k), new.get(k), f'{at}.{k}')]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [p for i, (a, b) in enumerate(zip(old, new, strict=True)) for p in changed_paths(a, b, f'{at}[{i}]')]
    return [at]
