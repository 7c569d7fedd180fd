"""What the server itself writes into `metadata`, and what a client may not change there. Pure.

Source: apiserver pkg/registry/rest/{meta,create,update}.go; apimachinery pkg/api/validation/objectmeta.go.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from kapi.errors import MODIFIED, BadRequest, Conflict
from kapi.registry.kind import Kind
from kapi.registry.strategy import Invalid
from kcore.meta import names
from kcore.meta.times import format_time

Obj = dict[str, Any]

SUFFIX_LETTERS = 'bcdfghjklmnpqrstvwxz2456789'
SUFFIX_LENGTH = 5
GENERATED_BASE_CHARS_MAX = 63 - SUFFIX_LENGTH
"""`generateName` is cut so that the result still is a label."""
ANNOTATIONS_BYTES_MAX = 256 * 1024


def generated_name(base: str, rng: random.Random) -> str:
    return base[:GENERATED_BASE_CHARS_MAX] + ''.join(rng.choices(SUFFIX_LETTERS, k=SUFFIX_LENGTH))


def place(kind: Kind, obj: Obj, namespace: str) -> Obj:
    """Put the object into the namespace of the URL; returns its metadata. Raises BadRequest on a contradiction."""
    metadata: Obj = obj['metadata']
    if not kind.resource.namespaced:
        metadata.pop('namespace', None)
        return metadata
    given = metadata.get('namespace') or namespace
    if given != namespace:
        raise BadRequest('the namespace of the provided object does not match the namespace sent on the request')
    metadata['namespace'] = namespace
    return metadata


def stamp_new(obj: Obj, uid: str, now: datetime) -> None:
    """System fields of an object about to be created."""
    metadata = obj['metadata']
    for field in ('deletionTimestamp', 'deletionGracePeriodSeconds', 'selfLink', 'resourceVersion', 'generation'):
        metadata.pop(field, None)
    metadata['uid'] = uid
    metadata['creationTimestamp'] = format_time(now)


def check_precondition(kind: Kind, name: str, new: Obj, old: Obj) -> None:
    """resourceVersion and uid of an update's body, when given, must be the stored ones. Raises Conflict."""
    given, stored = new['metadata'], old['metadata']
    rv = given.get('resourceVersion')
    if rv and rv != '0' and rv != stored['resourceVersion']:
        raise Conflict.of(kind.resource, name, MODIFIED)
    uid = given.get('uid')
    if uid and uid != stored['uid']:
        why = f'Precondition failed: UID in precondition: {uid}, UID in object meta: {stored["uid"]}'
        raise Conflict.of(kind.resource, name, why)


SERVER_FIELDS = (
    'uid',
    'creationTimestamp',
    'deletionTimestamp',
    'deletionGracePeriodSeconds',
    'generation',
    'namespace',
)


def carry_over(new: Obj, old: Obj) -> None:
    """Server-owned metadata is the stored object's, whatever the client sent."""
    given, stored = new['metadata'], old['metadata']
    for field in SERVER_FIELDS:
        if field in stored:
            given[field] = stored[field]
        else:
            given.pop(field, None)
    given['resourceVersion'] = stored['resourceVersion']
    given.pop('selfLink', None)
    if not given.get('generateName') and stored.get('generateName'):
        given['generateName'] = stored['generateName']


def validate_new(kind: Kind, obj: Obj) -> Iterator[Invalid]:
    metadata = obj['metadata']
    base = metadata.get('generateName')
    name = metadata.get('name')
    if not name:
        yield Invalid('metadata.name', 'Required value: name or generateName is required', 'FieldValueRequired')
    else:
        for why in (
            ()
            if base and name.startswith(base[:GENERATED_BASE_CHARS_MAX]) and not names.path_segment(name)
            else names.path_segment(name)
        ):
            yield Invalid('metadata.name', f'Invalid value: "{name}": {why}')
    yield from _validate_common(metadata)


def validate_change(new: Obj, old: Obj) -> Iterator[Invalid]:
    given, stored = new['metadata'], old['metadata']
    yield from _validate_common(given)
    if stored.get('deletionTimestamp'):
        added = [f for f in given.get('finalizers') or () if f not in (stored.get('finalizers') or ())]
        if added:
            listed = ', '.join(f'"{f}"' for f in added)
            yield Invalid(
                'metadata.finalizers',
                'Forbidden: no new finalizers can be added if the object is being deleted, '
                f'found new finalizers []string{{{listed}}}',
                'FieldValueForbidden',
            )


def _validate_common(metadata: Obj) -> Iterator[Invalid]:
    for key, value in (metadata.get('labels') or {}).items():
        for why in names.label_key(key):
            yield Invalid('metadata.labels', f'Invalid value: "{key}": {why}')
        for why in names.label_value(value):
            yield Invalid('metadata.labels', f'Invalid value: "{value}": {why}')
    total = 0
    for key, value in (metadata.get('annotations') or {}).items():
        for why in names.label_key(key.lower()):
            yield Invalid('metadata.annotations', f'Invalid value: "{key}": {why}')
        total += len(key) + len(value or '')
    if total > ANNOTATIONS_BYTES_MAX:
        yield Invalid(
            'metadata.annotations', f'Too long: may not be more than {ANNOTATIONS_BYTES_MAX} bytes', 'FieldValueTooLong'
        )
    for i, owner in enumerate(metadata.get('ownerReferences') or ()):
        for field in ('apiVersion', 'kind', 'name', 'uid'):
            if not owner.get(field):
                yield Invalid(f'metadata.ownerReferences[{i}].{field}', 'Invalid value: "": must not be empty')
    if sum(1 for o in metadata.get('ownerReferences') or () if o.get('controller')) > 1:
        yield Invalid('metadata.ownerReferences', 'Invalid value: Only one reference can have Controller set to true')
    for i, finalizer in enumerate(metadata.get('finalizers') or ()):
        for why in names.label_key(finalizer):
            yield Invalid(f'metadata.finalizers[{i}]', f'Invalid value: "{finalizer}": {why}')


def bump_generation(new: Obj, old: Obj) -> None:
    """One more when anything but metadata and status changed."""
    changed = any(
        new.get(k) != old.get(k)
        for k in new.keys() | old.keys()
        if k not in {'metadata', 'status', 'apiVersion', 'kind'}
    )
    if changed:
        new['metadata']['generation'] = int(old['metadata'].get('generation') or 0) + 1
