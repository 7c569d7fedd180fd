"""What is behind a claim: a directory of this machine, when its persistent volume is of a kind that is one.

Source: pkg/kubelet/volumemanager/populator/desired_state_of_world_populator.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcore.meta.gvk import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES
from kcore.meta.objects import controller_of, deleting
from knode.errors import ClaimError, VolumeError
from knode.pods.model import Obj

if TYPE_CHECKING:
    from knode.pods.host import Objects


def name_of(pod: Obj, volume: Obj) -> str | None:
    """Of the claim that a volume stands for; None: for none."""
    if 'persistentVolumeClaim' in volume:
        return str(volume['persistentVolumeClaim']['claimName'])
    return f'{pod["metadata"]["name"]}-{volume["name"]}' if 'ephemeral' in volume else None


async def source(objects: Objects, pod: Obj, volume: Obj, name: str) -> Obj:
    """The hostPath behind the claim. Raises VolumeError in Kubernetes' words, and kclient errors."""
    namespace = pod['metadata']['namespace']
    where = f'error processing PVC {namespace}/{name}'
    claim = await objects.read(PERSISTENTVOLUMECLAIMS, name, namespace)
    if claim is None:
        raise ClaimError(f'{where}: failed to fetch PVC from API server: persistentvolumeclaims "{name}" not found')
    if 'ephemeral' in volume and (controller_of(claim) or {}).get('uid') != pod['metadata']['uid']:
        raise ClaimError(
            f'PVC {namespace}/{name} was not created for pod {namespace}/{pod["metadata"]["name"]} (pod is not owner)'
        )
    if deleting(claim):
        raise ClaimError(f'{where}: PVC is being deleted')
    volume_name = claim['spec'].get('volumeName')
    if (claim.get('status') or {}).get('phase') != 'Bound' or not volume_name:
        raise ClaimError(f'{where}: PVC is not bound')
    found = await objects.read(PERSISTENTVOLUMES, volume_name, '')
    if found is None:
        raise ClaimError(f'{where}: failed to fetch PV {volume_name} from API server: not found')
    if (found['spec'].get('claimRef') or {}).get('uid') != claim['metadata']['uid']:
        raise ClaimError(f'{where}: PV {volume_name} is bound to another claim')
    return _directory(found)


def _directory(volume: Obj) -> Obj:
    spec = volume['spec']
    if spec.get('volumeMode') == 'Block':
        raise VolumeError(f'volumeMode Block of persistent volume "{volume["metadata"]["name"]}" is not supported')
    if 'hostPath' in spec:
        return dict(spec['hostPath'])
    if 'local' in spec:
        return {'path': spec['local']['path'], 'type': 'Directory'}
    raise VolumeError(
        f'persistent volume "{volume["metadata"]["name"]}": only hostPath and local are supported by this node'
    )
