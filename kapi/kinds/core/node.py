"""Node: a machine that runs pods."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import PlainStrategy
from kapi.kinds.core.pod_defaults import normalize_resources
from kapi.kinds.core.pod_rules import EFFECTS
from kapi.kinds.printing import AGE, NONE, UNKNOWN, Cell, boolean, text
from kapi.kinds.rules import complaints, duplicate, forbidden, one_of, quantity
from kapi.registry.kind import Col, Connect, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta import gvk, names
from kcore.meta.objects import get_condition

ROLE_PREFIX = 'node-role.kubernetes.io/'
ROLE_LABEL = 'kubernetes.io/role'
ANY_VERB = ('create', 'delete', 'get', 'patch', 'update')


class NodeStrategy(PlainStrategy):
    status_on_create = True

    def default(self, obj: Obj) -> None:
        status = obj.get('status') or {}
        normalize_resources(status.get('capacity'))
        normalize_resources(status.get('allocatable'))
        if status.get('capacity') and not status.get('allocatable'):
            status['allocatable'] = dict(status['capacity'])

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        seen: set[tuple[str, str]] = set()
        for i, taint in enumerate(spec.get('taints') or ()):
            at, key, value = f'spec.taints[{i}]', taint.get('key') or '', taint.get('value') or ''
            yield from complaints(f'{at}.key', key, names.label_key(key))
            yield from complaints(f'{at}.value', value, names.label_value(value))
            yield from one_of(f'{at}.effect', taint.get('effect'), EFFECTS)
            if (key, taint.get('effect')) in seen:
                yield duplicate(at, taint)
            seen.add((key, taint.get('effect')))
        if old is None:
            return
        before = old.get('spec') or {}
        for field in ('podCIDR', 'podCIDRs', 'providerID'):
            if before.get(field) and spec.get(field) != before[field]:
                word = 'node updates may not change podCIDR except from "" to valid' if field == 'podCIDR' else None
                yield forbidden(f'spec.{field}', word or f'node updates may not change {field} except from "" to valid')

    def validate_status(self, new: Obj, old: Obj) -> Iterator[Invalid]:
        status = new.get('status') or {}
        for field in ('capacity', 'allocatable'):
            for name, amount in (status.get(field) or {}).items():
                yield from quantity(f'status.{field}[{name}]', amount)

    def prepare_status(self, new: Obj, old: Obj) -> None:
        self.default(new)


def _status(node: Obj, _now: datetime) -> str:
    ready = get_condition(node, 'Ready')
    word = 'Unknown' if ready is None else 'Ready' if ready.get('status') == 'True' else 'NotReady'
    return f'{word},SchedulingDisabled' if (node.get('spec') or {}).get('unschedulable') else word


def _roles(node: Obj, _now: datetime) -> str:
    labels = (node.get('metadata') or {}).get('labels') or {}
    roles = {k.removeprefix(ROLE_PREFIX) for k in labels if k.startswith(ROLE_PREFIX) and k != ROLE_PREFIX}
    if labels.get(ROLE_LABEL):
        roles.add(labels[ROLE_LABEL])
    return ','.join(sorted(roles)) or NONE


def _address(kind: str) -> Cell:
    def cell(node: Obj, _now: datetime) -> str:
        addresses = (node.get('status') or {}).get('addresses') or ()
        return next((str(a['address']) for a in addresses if a.get('type') == kind and a.get('address')), NONE)

    return cell


_INFO = 'status.nodeInfo'
KIND = Kind(
    resource=gvk.NODES,
    strategy=NodeStrategy(),
    short=('no',),
    subresources=(Status(), Connect('proxy', 'NodeProxyOptions', ANY_VERB)),
    columns=(
        Col('Status', _status, description='Whether the node is ready, and whether it takes new pods.'),
        Col('Roles', _roles, description='Roles that its labels give it.'),
        AGE,
        Col('Version', text(f'{_INFO}.kubeletVersion'), description='Version of the node agent.'),
        Col('Internal-IP', _address('InternalIP'), priority=1, description='Address inside the cluster.'),
        Col('External-IP', _address('ExternalIP'), priority=1, description='Address outside the cluster.'),
        Col('OS-Image', text(f'{_INFO}.osImage', UNKNOWN), priority=1, description='Operating system.'),
        Col('Kernel-Version', text(f'{_INFO}.kernelVersion', UNKNOWN), priority=1, description='Kernel.'),
        Col('Container-Runtime', text(f'{_INFO}.containerRuntimeVersion', UNKNOWN), priority=1,
            description='What runs the containers.'),
    ),
    selectable={'spec.unschedulable': boolean('spec.unschedulable')},
)  # fmt: skip
