"""In-place resizes: the API says what a pod wants, the node holds it to what it has granted. Pure.

What would not fit even on the empty node is Infeasible; what does not fit beside the other pods is Deferred, and
looked at again whenever one of them leaves or shrinks. Source: pkg/kubelet/kubelet.go handlePodResourcesResize and
canResizePod, KEP-1287.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from knode.pods.admission import PREFIX, judge
from knode.pods.model import Obj, Pending, containers_of
from knode.pods.resources import amount, requests
from knode.static.manifest import is_mirror, is_static


def is_resized(wanted: Obj, granted: Obj) -> bool:
    """Whether any container wants other resources than it was granted."""
    given = _by_container(granted)
    return any(given.get(name, resources) != resources for name, resources in _by_container(wanted).items())


def held(wanted: Obj, granted: Obj) -> Obj:
    """The pod as it is wanted, with the resources that were granted."""
    if not is_resized(wanted, granted):
        return wanted
    given = _by_container(granted)
    spec = dict(wanted['spec'])
    for part in ('initContainers', 'containers'):
        if part in spec:
            spec[part] = [{**c, 'resources': given.get(c['name'], c.get('resources') or {})} for c in spec[part]]
    return {**wanted, 'spec': spec}


def _by_container(pod: Obj) -> dict[str, Obj]:
    """Ephemeral containers have none."""
    return {c['name']: c.get('resources') or {} for c, kind in containers_of(pod['spec']) if kind != 'ephemeral'}


def objection(wanted: Obj, others: Iterable[Obj], allocatable: Mapping[str, str], node: Obj | None) -> Pending | None:
    """Why the node does not grant what the pod wants; None: it does. others: the pods that hold resources beside it."""
    if is_static(wanted) or is_mirror(wanted):
        return Pending('Infeasible', 'In-place resize of static-pods is not supported')
    asked = requests(wanted)
    for name in ('memory', 'cpu'):
        most = amount(name, allocatable.get(name, '0'))
        if asked.get(name, 0) > most:
            text = f"Node didn't have enough capacity: {name}, requested: {asked[name]}, capacity: {most}"
            return Pending('Infeasible', text)
    found = judge(wanted, others, allocatable, node)
    if found.shortages:
        return Pending('Deferred', found.shortages[0].text)
    return Pending('Deferred', found.verdict.message.removeprefix(PREFIX)) if found.verdict is not None else None
