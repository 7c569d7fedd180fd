"""Which volumes should be attached where. Pure. Source: pkg/controller/volume/attachdetach, pkg/volume/csi."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kclient.model import Obj
from kcontrol.controllers.podgc.plan import is_out_of_service
from kcontrol.kinds import VOLUMEATTACHMENTS
from kcontrol.volumes import claims_of
from kcore.meta.objects import deleting, get_path, is_pod_finished, name_of, namespace_of

Lookup = Callable[[str], Obj | None]
"""key → claim, or name → volume."""


def attachment_name(driver: str, handle: str, node: str) -> str:
    """Follows from what it says, so that creating it twice is harmless."""
    return f'csi-{hashlib.sha256(f"{handle}{driver}{node}".encode()).hexdigest()}'


def wanted(pods: Iterable[Obj], claim: Lookup, volume: Lookup, drivers: Mapping[str, Obj]) -> dict[str, Obj]:
    """Name → VolumeAttachment, for every CSI volume that a pod on some node uses. drivers: CSIDrivers by name."""
    found: dict[str, Obj] = {}
    for pod in pods:
        node = (pod.get('spec') or {}).get('nodeName')
        if not node or is_pod_finished(pod):
            continue
        for name in claims_of(pod):
            bound = claim(f'{namespace_of(pod)}/{name}')
            held = volume(str(get_path(bound, 'spec.volumeName') or '')) if bound is not None else None
            source = get_path(held, 'spec.csi') if held is not None else None
            if held is None or not source:
                continue
            driver = drivers.get(str(source.get('driver')))
            if driver is not None and get_path(driver, 'spec.attachRequired') is False:
                continue
            made = _attachment(str(source['driver']), str(source['volumeHandle']), str(node), name_of(held))
            found[name_of(made)] = made
    return found


def _attachment(driver: str, handle: str, node: str, volume: str) -> Obj:
    spec = {'attacher': driver, 'nodeName': node, 'source': {'persistentVolumeName': volume}}
    api, kind = VOLUMEATTACHMENTS.api_version, VOLUMEATTACHMENTS.kind
    return {'apiVersion': api, 'kind': kind, 'metadata': {'name': attachment_name(driver, handle, node)}, 'spec': spec}


@dataclass(frozen=True, slots=True)
class Step:
    """What one pass over a node does to its attachments."""

    attach: tuple[Obj, ...]
    wait: tuple[Obj, ...]
    """Wanted, but another node still has what only one may have."""
    detach: tuple[Obj, ...]
    mounted: tuple[Obj, ...] = ()
    """Wanted no more, but the node still has them mounted."""


def plan(
    node: str, goal: Mapping[str, Obj], everywhere: Sequence[Obj], volume: Lookup, mounted: Collection[str] = ()
) -> Step:
    """goal: as `wanted` tells it of the node's pods. everywhere: the attachments of all nodes.

    mounted: names of the volumes that the node still uses.
    """
    there = {name_of(a): a for a in everywhere if get_path(a, 'spec.nodeName') == node}
    missing = [goal[name] for name in sorted(goal.keys() - there.keys())]
    wait = [a for a in missing if held_elsewhere(a, everywhere, volume(volume_of(a)))]
    # Attachments of other names are not ours.
    idle = [there[n] for n in sorted(there.keys() - goal.keys()) if n.startswith('csi-') and not deleting(there[n])]
    busy = [a for a in idle if (held := volume(volume_of(a))) is not None and node_name_of(held) in mounted]
    return Step(
        tuple(a for a in missing if a not in wait), tuple(wait), tuple(a for a in idle if a not in busy), tuple(busy)
    )


def mounted(node: Obj | None) -> Collection[str]:
    """What the node says that it has mounted; a node that is gone or out of service is not listened to."""
    if node is None or is_out_of_service(node):
        return ()
    return frozenset(get_path(node, 'status.volumesInUse') or ())


def volume_of(attachment: Obj) -> str:
    return str(get_path(attachment, 'spec.source.persistentVolumeName') or '')


def exclusive(volume: Obj) -> bool:
    """Whether only one node at a time may have the volume."""
    modes = get_path(volume, 'spec.accessModes') or ()
    return bool(modes) and not {'ReadWriteMany', 'ReadOnlyMany'} & set(modes)


def held_elsewhere(attachment: Obj, others: Iterable[Obj], volume: Obj | None) -> bool:
    """Whether another node still has what only one may have."""
    return volume is not None and exclusive(volume) and any(
        volume_of(o) == volume_of(attachment)
        and get_path(o, 'spec.nodeName') != get_path(attachment, 'spec.nodeName')
        for o in others
    )  # fmt: skip


def users_of(volume: Obj, pods: Iterable[Obj]) -> list[Obj]:
    """The pods that use the claim to which the volume is bound."""
    ref = get_path(volume, 'spec.claimRef') or {}
    return [
        p for p in pods
        if namespace_of(p) == ref.get('namespace') and ref.get('name') in claims_of(p) and not is_pod_finished(p)
    ]  # fmt: skip


def attached(node: str, attachments: Iterable[Obj], volume: Lookup) -> list[Obj]:
    """`node.status.volumesAttached` as the attachments tell it: what is being detached may be mounted no more."""
    found: list[Obj] = []
    for one in attachments:
        if get_path(one, 'spec.nodeName') != node or not get_path(one, 'status.attached') or deleting(one):
            continue
        held = volume(volume_of(one))
        if held is not None and (name := node_name_of(held)):
            found.append({'name': name, 'devicePath': ''})
    return sorted(found, key=lambda v: str(v['name']))


def node_name_of(volume: Obj) -> str:
    """What nodes call a CSI volume; empty for others."""
    source = get_path(volume, 'spec.csi')
    return f'kubernetes.io/csi/{source["driver"]}^{source["volumeHandle"]}' if source else ''
