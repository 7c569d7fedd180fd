"""What a DELETE does to an object: remove it now, or mark it and wait for finalizers and grace. Pure.

Source: apiserver pkg/registry/rest/delete.go (BeforeDelete), registry/generic/registry/store.go
(deletionFinalizersForGarbageCollection, markAsDeleting).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from kapi.errors import Conflict
from kapi.registry.kind import Kind
from kapi.registry.options import DeleteOptions
from kapi.storage.codec import clone
from kcore.meta.times import format_time, parse_time

Obj = dict[str, Any]

ORPHAN = 'orphan'
FOREGROUND = 'foregroundDeletion'


def check_preconditions(kind: Kind, obj: Obj, options: DeleteOptions) -> None:
    """Raises Conflict when the caller meant another object or another version of it."""
    metadata = obj['metadata']
    name = metadata['name']
    if options.uid and options.uid != metadata['uid']:
        why = f'Precondition failed: UID in precondition: {options.uid}, UID in object meta: {metadata["uid"]}'
        raise Conflict.of(kind.resource, name, why)
    if options.resource_version and options.resource_version != metadata['resourceVersion']:
        why = (
            f'Precondition failed: ResourceVersion in precondition: {options.resource_version}, '
            f'ResourceVersion in object meta: {metadata["resourceVersion"]}'
        )
        raise Conflict.of(kind.resource, name, why)


def mark(kind: Kind, obj: Obj, options: DeleteOptions, now: datetime) -> Obj | None:
    """The object as it must be stored next, or None when it may be removed at once."""
    marked = clone(obj)
    metadata = marked['metadata']
    if not metadata.get('deletionTimestamp') and kind.strategy.deletion_finalizers:
        metadata['finalizers'] = [*dict.fromkeys((*metadata.get('finalizers', ()), *kind.strategy.deletion_finalizers))]
    _set_gc_finalizers(kind, metadata, options)
    waits = kind.strategy.grace_period_s(obj, options.grace_period_s)
    pending = metadata.get('deletionGracePeriodSeconds')
    if metadata.get('deletionTimestamp'):
        # A later request may only shorten the wait.
        if pending and (waits < pending):
            _set_deadline(
                metadata, parse_time(metadata['deletionTimestamp']) - timedelta(seconds=pending - waits), waits
            )
    else:
        _set_deadline(metadata, now + timedelta(seconds=waits), waits)
        if kind.strategy.generation and metadata.get('generation'):
            metadata['generation'] += 1
    if _is_namespace(kind):
        marked.setdefault('status', {})['phase'] = 'Terminating'
    return None if finished(kind, marked) else marked


def _is_namespace(kind: Kind) -> bool:
    return kind.resource.plural == 'namespaces' and not kind.resource.group


def _set_deadline(metadata: Obj, when: datetime, grace_s: int) -> None:
    metadata['deletionTimestamp'] = format_time(when)
    metadata['deletionGracePeriodSeconds'] = grace_s


def _set_gc_finalizers(kind: Kind, metadata: Obj, options: DeleteOptions) -> None:
    before = list(metadata.get('finalizers') or ())
    policy = options.propagation
    if not policy:
        policy = (
            'Foreground'
            if FOREGROUND in before
            else 'Orphan'
            if ORPHAN in before
            else kind.strategy.default_propagation
        )
    keep = [f for f in before if f not in {ORPHAN, FOREGROUND}]
    if policy == 'Orphan':
        keep.append(ORPHAN)
    elif policy == 'Foreground':
        keep.append(FOREGROUND)
    if keep:
        metadata['finalizers'] = keep
    else:
        metadata.pop('finalizers', None)


def finished(kind: Kind, obj: Obj) -> bool:
    """Whether an object that is being deleted has nothing left to wait for.

    A namespace also waits for `spec.finalizers`, which its controller removes once the content is gone.
    """
    metadata = obj['metadata']
    if (
        not metadata.get('deletionTimestamp')
        or metadata.get('finalizers')
        or metadata.get('deletionGracePeriodSeconds')
    ):
        return False
    return not (_is_namespace(kind) and (obj.get('spec') or {}).get('finalizers'))
