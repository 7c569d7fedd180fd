"""What `pods/resize` may change: cpu and memory of containers and sidecars, within the pod's class of service.

Source: pkg/apis/core/validation ValidatePodResize (1.33).
"""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.core.pod_qos import COMPUTE, qos_class
from kapi.kinds.core.pod_rules import pod_spec
from kapi.kinds.rules import forbidden, invalid
from kapi.registry.kind import Obj
from kapi.registry.strategy import Invalid
from kcore.meta.quantity import parse

MIRROR = 'kubernetes.io/config.mirror'
FIELDS = ('containers', 'initContainers')
SIDES = ('requests', 'limits')


def pod_resize(new: Obj, old: Obj) -> Iterator[Invalid]:
    spec, before = new.get('spec') or {}, old.get('spec') or {}
    if MIRROR in (old['metadata'].get('annotations') or {}):
        yield forbidden('', 'static pods cannot be resized')
    elif any((before.get('resources') or {}).values()) or any((spec.get('resources') or {}).values()):
        yield forbidden('', 'pods with pod-level resources cannot be resized')
    elif moved := list(_moved(spec, before)):
        yield from moved
    else:
        yield from pod_spec('spec', spec)
        yield from _amounts(new, old)


def _moved(spec: Obj, before: Obj) -> Iterator[Invalid]:
    for field in FIELDS:
        mine, theirs = spec.get(field) or (), before.get(field) or ()
        if len(mine) != len(theirs):
            yield forbidden(f'spec.{field}', f'{field} may not be added or removed on resize')
            continue
        for i, (c, was) in enumerate(zip(mine, theirs, strict=True)):
            if c.get('name') != was.get('name'):
                yield forbidden(f'spec.{field}[{i}].name', f'{field} may not be renamed or reordered on resize')


def _amounts(new: Obj, old: Obj) -> Iterator[Invalid]:
    was_class = (old.get('status') or {}).get('qosClass') or qos_class(old)
    if qos_class(new) != was_class:
        yield invalid('spec', was_class, 'Pod QOS Class may not change as a result of resizing')
    for field in FIELDS:
        pairs = zip(new['spec'].get(field) or (), old['spec'].get(field) or (), strict=True)
        for i, (c, was) in enumerate(pairs):
            if field == 'initContainers' and was.get('restartPolicy') != 'Always':
                if (c.get('resources') or {}) != (was.get('resources') or {}):
                    yield forbidden('spec', 'resources for non-sidecar init containers are immutable')
                continue
            yield from _container(f'spec.{field}[{i}].resources', c, was)


def _container(at: str, c: Obj, was: Obj) -> Iterator[Invalid]:
    mine, theirs = c.get('resources') or {}, was.get('resources') or {}
    for side in SIDES:
        if (theirs.get(side) or {}).keys() - (mine.get(side) or {}).keys():
            yield forbidden(f'{at}.{side}', f'resource {side} cannot be removed')
    more, less = ((r.get('limits') or {}).get('memory') for r in (theirs, mine))
    if more and less and parse(less) < parse(more) and not _restarts_for_memory(c):
        yield forbidden(
            f'{at}.limits[memory]', 'memory limits cannot be decreased unless resizePolicy is RestartContainer'
        )
    if _rest(c) != _rest(was):
        yield forbidden('spec', 'only cpu and memory resources are mutable')


def _restarts_for_memory(c: Obj) -> bool:
    policies = c.get('resizePolicy') or ()
    return any(p.get('resourceName') == 'memory' and p.get('restartPolicy') == 'RestartContainer' for p in policies)


def _rest(c: Obj) -> tuple[object, ...]:
    """What of a container's resources has to stay."""
    resources = c.get('resources') or {}
    kept = tuple({k: v for k, v in (resources.get(side) or {}).items() if k not in COMPUTE} for side in SIDES)
    return *kept, resources.get('claims') or [], c.get('resizePolicy') or []
