"""A container's environment, as a pure function of the pod, the node and the objects that it refers to.

Order of precedence, lowest first: the image's, service variables, `envFrom`, `env`; a later `env` entry sees the
earlier ones. Source: kubelet_pods.go makeEnvironmentVariables, pkg/kubelet/envvars.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from kcore.meta import quantity
from knode.errors import ContainerConfigError
from knode.pods.expand import expand

Obj = Mapping[str, Any]
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a pod may ask about itself and its node."""

    pod_ip: str
    host_ip: str
    node_name: str
    allocatable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sources:
    """ConfigMaps and Secrets of the pod's namespace by name; None: looked for and not there."""

    config_maps: Mapping[str, Obj | None] = field(default_factory=dict)
    secrets: Mapping[str, Obj | None] = field(default_factory=dict)
    services: Iterable[Obj] = ()
    """Services of the pod's namespace, and `kubernetes` of `default`."""


def references(container: Obj) -> tuple[set[str], set[str]]:
    """Names of the ConfigMaps and Secrets that the environment needs."""
    maps, secrets = set(), set()
    for source in container.get('envFrom') or ():
        if ref := source.get('configMapRef'):
            maps.add(ref['name'])
        if ref := source.get('secretRef'):
            secrets.add(ref['name'])
    for entry in container.get('env') or ():
        value_from = entry.get('valueFrom') or {}
        if ref := value_from.get('configMapKeyRef'):
            maps.add(ref['name'])
        if ref := value_from.get('secretKeyRef'):
            secrets.add(ref['name'])
    return maps, secrets


def environment(pod: Obj, container: Obj, facts: Facts, sources: Sources) -> dict[str, str]:
    """Raises ContainerConfigError in Kubernetes' words when something referred to is missing."""
    links = (pod['spec'].get('enableServiceLinks')) is not False
    known = dict(service_variables(sources.services, pod['metadata']['namespace'], links=links))
    result: dict[str, str] = dict(known)
    for source in container.get('envFrom') or ():
        result.update(_from_source(pod, source, sources))
    known |= result
    for entry in container.get('env') or ():
        name = entry['name']
        value_from = entry.get('valueFrom')
        if value_from:
            value = _value_from(pod, container, value_from, facts, sources)
            if value is None:
                continue
        else:
            value = expand(entry.get('value') or '', known)
        result[name] = known[name] = value
    return result


def _from_source(pod: Obj, source: Obj, sources: Sources) -> Iterator[tuple[str, str]]:
    prefix = source.get('prefix') or ''
    ref = source.get('configMapRef') or source.get('secretRef') or {}
    kind = 'configmap' if 'configMapRef' in source else 'secret'
    found = (sources.config_maps if kind == 'configmap' else sources.secrets).get(ref['name'])
    if found is None:
        if ref.get('optional'):
            return
        raise ContainerConfigError(f'{kind} "{ref["name"]}" not found')
    for key, value in sorted(_data(found, kind).items()):
        yield f'{prefix}{key}', value


def _data(obj: Obj, kind: str) -> dict[str, str]:
    data = obj.get('data') or {}
    if kind == 'configmap':
        return dict(data)
    return {k: decode_secret(v).decode('utf-8', 'surrogateescape') for k, v in data.items()}


def decode_secret(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as e:
        raise ContainerConfigError(f'secret data is not base64: {e}') from e


def _value_from(pod: Obj, container: Obj, value_from: Obj, facts: Facts, sources: Sources) -> str | None:
    if ref := value_from.get('fieldRef'):
        return field_value(pod, ref['fieldPath'], facts)
    if ref := value_from.get('resourceFieldRef'):
        return resource_value(pod, container, ref, facts)
    kind, shown = ('configmap', 'ConfigMap') if 'configMapKeyRef' in value_from else ('secret', 'Secret')
    ref = value_from.get('configMapKeyRef') or value_from.get('secretKeyRef')
    if ref is None:
        raise ContainerConfigError('env: valueFrom without a known source')
    found = (sources.config_maps if kind == 'configmap' else sources.secrets).get(ref['name'])
    if found is None:
        if ref.get('optional'):
            return None
        raise ContainerConfigError(f'{kind} "{ref["name"]}" not found')
    data = _data(found, kind)
    if ref['key'] not in data:
        if ref.get('optional'):
            return None
        where = f'{pod["metadata"]["namespace"]}/{ref["name"]}'
        raise ContainerConfigError(f"couldn't find key {ref['key']} in {shown} {where}")
    return data[ref['key']]


def field_value(pod: Obj, path: str, facts: Facts) -> str:
    """The downward API's value of a field path. Raises ContainerConfigError for an unsupported one."""
    meta, spec = pod['metadata'], pod['spec']
    if found := _SUBSCRIPT.fullmatch(path):
        return str((meta.get(found[1]) or {}).get(found[2], ''))
    if path in {'metadata.labels', 'metadata.annotations'}:
        values = meta.get(path.removeprefix('metadata.')) or {}
        return '\n'.join(f'{k}="{_quoted(str(v))}"' for k, v in sorted(values.items()))
    simple = {
        'metadata.name': meta.get('name'),
        'metadata.namespace': meta.get('namespace'),
        'metadata.uid': meta.get('uid'),
        'spec.nodeName': spec.get('nodeName') or facts.node_name,
        'spec.serviceAccountName': spec.get('serviceAccountName') or 'default',
        'status.hostIP': facts.host_ip,
        'status.hostIPs': facts.host_ip,
        'status.podIP': facts.pod_ip,
        'status.podIPs': facts.pod_ip,
    }
    if path not in simple:
        raise ContainerConfigError(f'unsupported fieldPath: {path}')
    return str(simple[path] or '')


def _quoted(text: str) -> str:
    return text.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n')


def resource_value(pod: Obj, container: Obj, ref: Obj, facts: Facts) -> str:
    """Requests and limits divided by the divisor, rounded up; a missing limit is the node's allocatable.

    Raises ContainerConfigError when there is no such container.
    """
    if name := ref.get('containerName'):
        every = [*(pod['spec'].get('containers') or ()), *(pod['spec'].get('initContainers') or ())]
        found = next((c for c in every if c['name'] == name), None)
        if found is None:
            raise ContainerConfigError(f'container {name} not found')
        container = found
    kind, _, resource = ref['resource'].partition('.')
    resources = container.get('resources') or {}
    amount = (resources.get(kind) or {}).get(resource)
    if amount is None and kind == 'requests':
        amount = (resources.get('limits') or {}).get(resource)
    if amount is None:
        amount = facts.allocatable.get(resource, '0') if kind == 'limits' else '0'
    divisor = quantity.parse(ref.get('divisor') or '1') or Decimal(1)
    whole, rest = divmod(quantity.parse(amount), divisor)
    return str(int(whole) + bool(rest))


def service_variables(services: Iterable[Obj], namespace: str, *, links: bool) -> Iterator[tuple[str, str]]:
    """`NAME_SERVICE_HOST`, `NAME_SERVICE_PORT` and the Docker-link forms; without `links` only the API's own."""
    for service in services:
        meta, spec = service['metadata'], service['spec']
        master = meta['name'] == 'kubernetes' and meta['namespace'] == 'default'
        ip, ports = spec.get('clusterIP'), spec.get('ports') or []
        if ip in {None, '', 'None'} or not ports or not (master or (links and meta['namespace'] == namespace)):
            continue
        prefix = meta['name'].upper().replace('-', '_')
        yield f'{prefix}_SERVICE_HOST', ip
        yield f'{prefix}_SERVICE_PORT', str(ports[0]['port'])
        yield from (
            (f'{prefix}_SERVICE_PORT_{p["name"].upper().replace("-", "_")}', str(p['port']))
            for p in ports
            if p.get('name')
        )
        for i, p in enumerate(ports):
            protocol = p.get('protocol') or 'TCP'
            url = f'{protocol.lower()}://{ip}:{p["port"]}'
            if i == 0:
                yield f'{prefix}_PORT', url
            link = f'{prefix}_PORT_{p["port"]}_{protocol}'
            yield from (
                (link, url),
                (f'{link}_PROTO', protocol.lower()),
                (f'{link}_PORT', str(p['port'])),
                (f'{link}_ADDR', ip),
            )
