"""Defaults of a pod spec, in a Pod and in every template. Source: pkg/apis/core/v1/defaults.go.

What the API fills in is part of its contract: clients compare specs, and a server-side apply joins list items by keys
that may have been defaulted (a port's protocol).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kapi.kinds.base import put_defaults
from kcore.meta.quantity import QuantityError, canonical

Obj = dict[str, Any]

GRACE_PERIOD_S = 30
SCHEDULER = 'default-scheduler'
FILE_MODE = 0o644
TOKEN_EXPIRATION_S = 3600
CONTAINER_LISTS = ('initContainers', 'containers', 'ephemeralContainers')
PROBES = ('livenessProbe', 'readinessProbe', 'startupProbe')


def containers_of(spec: Obj) -> Iterator[Obj]:
    """Init, main and ephemeral containers, in this order."""
    for field in CONTAINER_LISTS:
        yield from spec.get(field) or ()


def default_pod(pod: Obj) -> None:
    """Defaults of a Pod object; a superset of those of a template."""
    spec = pod.get('spec')
    if not isinstance(spec, dict):
        return
    default_pod_spec(spec)
    put_defaults(spec, enableServiceLinks=True)
    for container in containers_of(spec):
        _requests_from_limits(container)


def default_template(template: Any) -> None:
    """Defaults of a PodTemplateSpec."""
    if isinstance(template, dict) and isinstance(template.get('spec'), dict):
        default_pod_spec(template['spec'])


def _without_claims(spec: Obj) -> None:
    """Dynamic resource allocation is off, as by default upstream: what asks for it is dropped without a word."""
    spec.pop('resourceClaims', None)
    for container in containers_of(spec):
        if isinstance(container.get('resources'), dict):
            container['resources'].pop('claims', None)


def default_pod_spec(spec: Obj) -> None:
    put_defaults(
        spec,
        dnsPolicy='ClusterFirst',
        restartPolicy='Always',
        terminationGracePeriodSeconds=GRACE_PERIOD_S,
        schedulerName=SCHEDULER,
    )
    if 'securityContext' not in spec:
        spec['securityContext'] = {}
    _without_claims(spec)
    _service_account(spec)
    for container in containers_of(spec):
        default_container(container)
        if spec.get('hostNetwork'):
            for port in container.get('ports') or ():
                if not port.get('hostPort') and 'containerPort' in port:
                    port['hostPort'] = port['containerPort']
    for volume in spec.get('volumes') or ():
        default_volume(volume)
    normalize_resources(spec.get('overhead'))


def _service_account(spec: Obj) -> None:
    """`serviceAccount` is the older name of `serviceAccountName`; both are always shown, and the newer one wins."""
    name = spec.get('serviceAccountName') or spec.get('serviceAccount')
    if name:
        spec['serviceAccountName'] = spec['serviceAccount'] = name


def default_container(container: Obj) -> None:
    put_defaults(
        container, terminationMessagePath='/dev/termination-log', terminationMessagePolicy='File'
    )  # fmt: skip
    if not container.get('imagePullPolicy'):
        container['imagePullPolicy'] = pull_policy(container.get('image') or '')
    for port in container.get('ports') or ():
        if not port.get('protocol'):
            port['protocol'] = 'TCP'
    for probe in PROBES:
        if isinstance(container.get(probe), dict):
            _probe(container[probe])
    for hook in (container.get('lifecycle') or {}).values():
        if isinstance(hook, dict):
            _http(hook)
    for env in container.get('env') or ():
        _field_ref((env.get('valueFrom') or {}).get('fieldRef'))
    resources = container.setdefault('resources', {})
    normalize_resources(resources.get('limits'))
    normalize_resources(resources.get('requests'))


def pull_policy(image: str) -> str:
    """Always for `latest` (said or implied), else IfNotPresent; a digest pins the image."""
    if '@' in image:
        return 'IfNotPresent'
    _, colon, tag = image.rpartition('/')[2].partition(':')
    return 'Always' if not colon or tag == 'latest' else 'IfNotPresent'


def _probe(probe: Obj) -> None:
    put_defaults(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    for field, value in (
        ('timeoutSeconds', 1),
        ('periodSeconds', 10),
        ('successThreshold', 1),
        ('failureThreshold', 3),
    ):
        if probe[field] == 0:
            probe[field] = value
    _http(probe)
    if isinstance(probe.get('grpc'), dict):
        put_defaults(probe['grpc'], service='')


def _http(holder: Obj) -> None:
    action = holder.get('httpGet')
    if isinstance(action, dict):
        if not action.get('path'):
            action['path'] = '/'
        if not action.get('scheme'):
            action['scheme'] = 'HTTP'


def _field_ref(ref: Any) -> None:
    if isinstance(ref, dict) and not ref.get('apiVersion'):
        ref['apiVersion'] = 'v1'


def normalize_resources(resources: Any) -> None:
    """Quantities in canonical form, in place; a broken one is left for validation to name."""
    if not isinstance(resources, dict):
        return
    for name, amount in resources.items():
        try:
            resources[name] = canonical(amount)
        except QuantityError:
            continue


def _requests_from_limits(container: Obj) -> None:
    resources = container.get('resources') or {}
    limits = resources.get('limits')
    if limits:
        requests = resources.setdefault('requests', {})
        for name, amount in limits.items():
            requests.setdefault(name, amount)


_SOURCE_MODES = ('secret', 'configMap', 'downwardAPI', 'projected')


def default_volume(volume: Obj) -> None:
    """A volume without a source is an emptyDir."""
    if all(key == 'name' for key in volume):
        volume['emptyDir'] = {}
    for source in _SOURCE_MODES:
        if isinstance(volume.get(source), dict):
            put_defaults(volume[source], defaultMode=FILE_MODE)
    if isinstance(volume.get('hostPath'), dict):
        put_defaults(volume['hostPath'], type='')
    _downward(volume.get('downwardAPI'))
    for source in (volume.get('projected') or {}).get('sources') or ():
        if isinstance(source.get('serviceAccountToken'), dict):
            put_defaults(source['serviceAccountToken'], expirationSeconds=TOKEN_EXPIRATION_S)
        _downward(source.get('downwardAPI'))
    _claim_template((volume.get('ephemeral') or {}).get('volumeClaimTemplate'))
    if isinstance(volume.get('emptyDir'), dict) and 'sizeLimit' in volume['emptyDir']:
        _size_limit(volume['emptyDir'])


def _size_limit(source: Obj) -> None:
    try:
        source['sizeLimit'] = canonical(source['sizeLimit'])
    except QuantityError:
        return


def _downward(source: Any) -> None:
    for item in (source or {}).get('items') or ():
        _field_ref(item.get('fieldRef'))


def _claim_template(template: Any) -> None:
    if isinstance(template, dict) and isinstance(template.get('spec'), dict):
        put_defaults(template['spec'], volumeMode='Filesystem')
