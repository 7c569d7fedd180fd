"""What a pod names: Secrets, ConfigMaps and claims.

Source: pkg/api/v1/pod/util.go (VisitPodSecretNames, VisitPodConfigmapNames).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Obj = dict[str, Any]

SECRET_FIELDS = {
    'cephfs': 'secretRef', 'cinder': 'secretRef', 'flexVolume': 'secretRef', 'iscsi': 'secretRef', 'rbd': 'secretRef',
    'scaleIO': 'secretRef', 'storageos': 'secretRef', 'csi': 'nodePublishSecretRef',
}  # fmt: skip
"""Volumes that name a Secret, and in which field."""


def named_in(spec: Obj, pod: str) -> set[tuple[str, str]]:
    """(resource, name) of the Secrets, ConfigMaps and claims that a pod's spec names."""
    return {*_of_volumes(spec, pod), *_of_containers(spec)}


def _of_volumes(spec: Obj, pod: str) -> Iterator[tuple[str, str]]:
    for secret in spec.get('imagePullSecrets') or ():
        yield 'secrets', secret.get('name', '')
    for volume in spec.get('volumes') or ():
        sources = [volume, *((volume.get('projected') or {}).get('sources') or ())]
        for source in sources:
            if secret := source.get('secret'):
                yield 'secrets', secret.get('secretName') or secret.get('name') or ''
            if config := source.get('configMap'):
                yield 'configmaps', config.get('name') or ''
        if claim := volume.get('persistentVolumeClaim'):
            yield 'persistentvolumeclaims', claim.get('claimName') or ''
        if 'ephemeral' in volume:
            yield 'persistentvolumeclaims', f'{pod}-{volume.get("name", "")}'
        if secret := (volume.get('azureFile') or {}).get('secretName'):
            yield 'secrets', secret
        for kind, field in SECRET_FIELDS.items():
            if secret := (volume.get(kind) or {}).get(field):
                yield 'secrets', secret.get('name') or ''


def _of_containers(spec: Obj) -> Iterator[tuple[str, str]]:
    for field in ('initContainers', 'containers', 'ephemeralContainers'):
        for container in spec.get(field) or ():
            for source in container.get('envFrom') or ():
                if ref := source.get('secretRef'):
                    yield 'secrets', ref.get('name') or ''
                if ref := source.get('configMapRef'):
                    yield 'configmaps', ref.get('name') or ''
            for variable in container.get('env') or ():
                source = variable.get('valueFrom') or {}
                if ref := source.get('secretKeyRef'):
                    yield 'secrets', ref.get('name') or ''
                if ref := source.get('configMapKeyRef'):
                    yield 'configmaps', ref.get('name') or ''
