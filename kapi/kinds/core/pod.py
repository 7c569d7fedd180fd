"""Pod: containers that live and die together on one node."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.base import BuiltinStrategy
from kapi.kinds.core.pod_columns import POD_COLUMNS, row_conditions
from kapi.kinds.core.pod_defaults import GRACE_PERIOD_S, default_pod
from kapi.kinds.core.pod_qos import qos_class
from kapi.kinds.core.pod_resize import pod_resize
from kapi.kinds.core.pod_rules import pod_ephemeral, pod_spec, pod_update
from kapi.kinds.printing import boolean
from kapi.registry.kind import READ_WRITE, Connect, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta import gvk
from kcore.meta.objects import get_path, is_pod_finished

ANY_VERB = ('create', 'delete', 'get', 'patch', 'update')


class PodStrategy(BuiltinStrategy):
    generation = False
    status_keeps = ('ownerReferences',)
    returns_deleted_object = True

    def default(self, obj: Obj) -> None:
        default_pod(obj)

    def prepare(self, new: Obj, old: Obj | None) -> None:
        if old is None:
            new['status'] = {'phase': 'Pending', 'qosClass': qos_class(new)}
            gates = (new.get('spec') or {}).get('schedulingGates')
            if gates:
                new['status']['conditions'] = [
                    {
                        'type': 'PodScheduled',
                        'status': 'False',
                        'reason': 'SchedulingGated',
                        'message': 'Scheduling is blocked due to non-empty scheduling gates',
                    }
                ]

    def prepare_status(self, new: Obj, old: Obj) -> None:
        qos = (old.get('status') or {}).get('qosClass')
        if qos and isinstance(new.get('status'), dict):
            new['status'].setdefault('qosClass', qos)

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        if old is not None and new.get('spec') == old.get('spec'):
            return  # judged when it was written; most updates are about labels, finalizers and owners
        yield from pod_spec('spec', new.get('spec') or {})
        if old is not None:
            yield from pod_update(new, old)

    def validate_part(self, subresource: str, new: Obj, old: Obj) -> Iterator[Invalid]:
        if subresource == 'resize':
            yield from pod_resize(new, old)
        elif subresource == 'ephemeralcontainers':
            yield from pod_ephemeral(new, old)

    def validate_status(self, new: Obj, old: Obj) -> Iterator[Invalid]:
        nominated = get_path(new, 'spec.nodeName')
        if nominated != get_path(old, 'spec.nodeName'):
            yield Invalid('status.nominatedNodeName', 'Forbidden: may not be changed directly', 'FieldValueForbidden')

    def warnings(self, new: Obj, old: Obj | None) -> Iterator[str]:
        if old is None:
            yield from pod_warnings('spec', new.get('spec') or {})

    def grace_period_s(self, obj: Obj, requested_s: int | None) -> int:
        """The request's, else the spec's; an unscheduled or finished pod has nothing to wait for."""
        spec = obj.get('spec') or {}
        wanted = requested_s
        if wanted is None:
            own = spec.get('terminationGracePeriodSeconds')
            wanted = GRACE_PERIOD_S if own is None else int(own)
        if not spec.get('nodeName') or is_pod_finished(obj):
            return 0
        return 1 if wanted < 0 else wanted


def pod_warnings(at: str, spec: Obj) -> Iterator[str]:
    """Accepted, but hardly what the author meant."""
    for field in ('initContainers', 'containers'):
        for number, container in enumerate(spec.get(field) or ()):
            seen: set[str] = set()
            for i, env in enumerate(container.get('env') or ()):
                name, where = env.get('name'), f'{at}.{field}[{number}].env[{i}]'
                if name in seen:
                    yield f'{where}: hides previous definition of "{name}", which may be dropped when using apply'
                seen.add(name)


KIND = Kind(
    resource=gvk.PODS,
    strategy=PodStrategy(),
    short=('po',),
    categories=('all',),
    subresources=(
        Status(),
        Connect('attach', 'PodAttachOptions', ('create', 'get')),
        Connect('binding', 'Binding', ('create',)),
        Connect('ephemeralcontainers', 'Pod', READ_WRITE),
        Connect('eviction', 'Eviction', ('create',), 'policy', 'v1'),
        Connect('exec', 'PodExecOptions', ('create', 'get')),
        Connect('log', 'Pod', ('get',)),
        Connect('portforward', 'PodPortForwardOptions', ('create', 'get')),
        Connect('proxy', 'PodProxyOptions', ANY_VERB),
        Connect('resize', 'Pod', READ_WRITE),
    ),
    columns=POD_COLUMNS,
    row_conditions=row_conditions,
    selectable={
        'spec.nodeName': 'spec.nodeName',
        'spec.restartPolicy': 'spec.restartPolicy',
        'spec.schedulerName': 'spec.schedulerName',
        'spec.serviceAccountName': 'spec.serviceAccountName',
        'spec.hostNetwork': boolean('spec.hostNetwork'),
        'status.phase': 'status.phase',
        'status.podIP': 'status.podIP',
        'status.podIPs': 'status.none',  # known, and always empty
        'spec.host': 'spec.nodeName',
        'status.nominatedNodeName': 'status.nominatedNodeName',
    },
)
