"""Order of deletion and the conditions that explain what is left. Pure.

Pods go first and alone: what they use (service accounts, secrets, claims, policies) stays until they have ended.
Source: pkg/controller/namespace/deletion/namespaced_resources_deleter.go, status_condition_utils.go; KEP-5080.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from kclient.model import Obj
from kcore.meta.gvk import Resource
from kcore.meta.times import format_time

DELETABLE = ('delete', 'list')
# (type, reason and message when fine, reason when not)
_FINE = {
    'NamespaceDeletionDiscoveryFailure': ('ResourcesDiscovered', 'All resources successfully discovered'),
    'NamespaceDeletionGroupVersionParsingFailure': (
        'ParsedGroupVersions',
        'All legacy kube types successfully parsed',
    ),
    'NamespaceDeletionContentFailure': (
        'ContentDeleted',
        'All content successfully deleted, may be waiting on finalization',
    ),
    'NamespaceContentRemaining': ('ContentRemoved', 'All content successfully removed'),
    'NamespaceFinalizersRemaining': ('ContentHasNoFinalizers', 'All content-preserving finalizers finished'),
}


def stages(resources: Iterable[Resource]) -> tuple[list[Resource], list[Resource]]:
    """(first, then): the second stage begins when nothing of the first is left."""
    namespaced = sorted((r for r in resources if r.namespaced), key=lambda r: r.qualified)
    pods = [r for r in namespaced if r.qualified == 'pods']
    return pods, [r for r in namespaced if r.qualified != 'pods']


def problems(
    remaining: Mapping[Resource, Sequence[Obj]], failed: Mapping[str, str], discovery: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Condition type → (reason, message) of what is wrong."""
    found: dict[str, tuple[str, str]] = {}
    if discovery:
        text = ', '.join(f'{version}: {error}' for version, error in sorted(discovery.items()))
        found['NamespaceDeletionDiscoveryFailure'] = (
            'DiscoveryFailed',
            f'Discovery failed for some groups, {len(discovery)} failing: {text}',
        )
    if failed:
        text = ', '.join(f'{name}: {error}' for name, error in sorted(failed.items()))
        found['NamespaceDeletionContentFailure'] = (
            'ContentDeletionFailed',
            f'Failed to delete all resource types, {len(failed)} remaining: {text}',
        )
    left = {r: objs for r, objs in remaining.items() if objs}
    if left:
        text = ', '.join(f'{_name(r)} has {len(objs)} resource instances' for r, objs in sorted(left.items(), key=_by))
        found['NamespaceContentRemaining'] = ('SomeResourcesRemain', f'Some resources are remaining: {text}')
    held = Counter(f for objs in left.values() for o in objs for f in o['metadata'].get('finalizers') or ())
    if held:
        text = ', '.join(f'{finalizer} in {count} resource instances' for finalizer, count in sorted(held.items()))
        found['NamespaceFinalizersRemaining'] = (
            'SomeFinalizersRemain',
            f'Some content in the namespace has finalizers remaining: {text}',
        )
    return found


def _by(item: tuple[Resource, Sequence[Obj]]) -> str:
    return item[0].qualified


def _name(r: Resource) -> str:
    """`pods.` for the core group, as upstream prints it."""
    return f'{r.plural}.{r.group}'


def plan_conditions(namespace: Obj, wrong: Mapping[str, tuple[str, str]], now: datetime) -> list[Obj]:
    """All conditions. A type that was never true stays unmentioned until something is wrong anywhere."""
    held = {c.get('type'): c for c in (namespace.get('status') or {}).get('conditions') or ()}
    result = [dict(c) for c in held.values() if c.get('type') not in _FINE]
    for kind, fine in _FINE.items():
        status = 'True' if kind in wrong else 'False'
        reason, message = wrong.get(kind, fine)
        old = held.get(kind)
        if old is not None and (old.get('status'), old.get('reason'), old.get('message')) == (status, reason, message):
            result.append(old)
            continue
        since = format_time(now)
        if old is not None and old.get('status') == status:
            since = old.get('lastTransitionTime', since)
        result.append(
            {'type': kind, 'status': status, 'lastTransitionTime': since, 'reason': reason, 'message': message}
        )
    return result
