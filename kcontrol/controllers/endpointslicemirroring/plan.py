"""Endpoints of a Service without a selector → slices. Pure.

Source: pkg/controller/endpointslicemirroring/reconciler.go. Differs: slices are named after the Endpoints and their
number, so that the same Endpoints always give the same slices.
"""

from __future__ import annotations

from ipaddress import ip_address

from kclient.model import Obj
from kcontrol.controllers.endpointslice.plan import MANAGED_LABEL, SERVICE_LABEL
from kcore.meta.gvk import ENDPOINTS
from kcore.meta.objects import annotations_of, labels_of, name_of, namespace_of, owner_ref

MANAGER = 'endpointslicemirroring-controller.k8s.io'
SKIP = 'endpointslice.kubernetes.io/skip-mirror'
LEADER = 'control-plane.alpha.kubernetes.io/leader'
SUBSET_MAX = 1000
"""Addresses of one subset that are mirrored; more are left out."""
SLICE_MAX = 100
_NOT_COPIED = frozenset(
    {'endpoints.kubernetes.io/last-change-trigger-time', 'kubectl.kubernetes.io/last-applied-configuration'}
)


def mirrored(endpoints: Obj, service: Obj | None) -> bool:
    """Whether these Endpoints are to be mirrored."""
    if service is None or (service.get('spec') or {}).get('selector'):
        return False
    return labels_of(endpoints).get(SKIP) != 'true' and LEADER not in annotations_of(endpoints)


def skipped(endpoints: Obj) -> int:
    """Addresses that are too many in their subset."""
    counts = (
        len(s.get('addresses') or ()) + len(s.get('notReadyAddresses') or ()) for s in endpoints.get('subsets') or ()
    )
    return sum(max(0, count - SUBSET_MAX) for count in counts)


def slices(endpoints: Obj, service: Obj) -> list[Obj]:
    """All slices as they should be."""
    made: list[Obj] = []
    for subset in endpoints.get('subsets') or ():
        ready = [(a, True) for a in subset.get('addresses') or ()]
        both = (ready + [(a, False) for a in subset.get('notReadyAddresses') or ()])[:SUBSET_MAX]
        for version in (4, 6):
            family = [_endpoint(a, is_ready) for a, is_ready in both if ip_address(a['ip']).version == version]
            pieces = [family[at : at + SLICE_MAX] for at in range(0, len(family), SLICE_MAX)]
            made += [_slice(endpoints, service, subset, piece, version) for piece in pieces]
    for number, piece in enumerate(made):
        piece['metadata']['name'] = f'{name_of(endpoints)}-mirror-{number}'
    return made


def _endpoint(address: Obj, ready: bool) -> Obj:
    found: Obj = {'addresses': [address['ip']], 'conditions': {'ready': ready}}
    return found | {k: address[k] for k in ('hostname', 'nodeName', 'targetRef') if address.get(k)}


def _slice(endpoints: Obj, service: Obj, subset: Obj, members: list[Obj], version: int) -> Obj:
    copied = {k: v for k, v in labels_of(endpoints).items() if k != 'endpoints.kubernetes.io/managed-by'}
    labels = {**copied, SERVICE_LABEL: name_of(service), MANAGED_LABEL: MANAGER}
    annotations = {k: v for k, v in annotations_of(endpoints).items() if k not in _NOT_COPIED}
    meta: Obj = {
        'namespace': namespace_of(endpoints), 'labels': labels, 'ownerReferences': [owner_ref(endpoints, ENDPOINTS)],
    }  # fmt: skip
    ports = [
        {'name': p.get('name') or '', 'port': p.get('port'), 'protocol': p.get('protocol') or 'TCP'}
        | ({'appProtocol': p['appProtocol']} if p.get('appProtocol') else {})
        for p in subset.get('ports') or ()
    ]
    return {
        'apiVersion': 'discovery.k8s.io/v1', 'kind': 'EndpointSlice',
        'metadata': meta | ({'annotations': annotations} if annotations else {}),
        'addressType': f'IPv{version}', 'endpoints': members, 'ports': ports,
    }  # fmt: skip


def same(held: Obj, wanted: Obj) -> bool:
    return all(held.get(k) == wanted[k] for k in ('addressType', 'endpoints', 'ports')) and labels_of(
        held
    ) == labels_of(wanted)
