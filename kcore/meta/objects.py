"""Accessors for objects in their canonical form (the dict that the JSON decoder made), and for conditions and owners.

Conditions and owner references appear on most kinds with the same shape; these are the only places that know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kcore.meta.gvk import Resource
from kcore.meta.times import format_time

Obj = dict[str, Any]
AnyObj = Mapping[str, Any]


def meta(obj: AnyObj) -> dict[str, Any]:
    return obj.get('metadata') or {}


def name_of(obj: AnyObj) -> str:
    return str(meta(obj).get('name', ''))


def namespace_of(obj: AnyObj) -> str:
    """Empty for a cluster-scoped object."""
    return str(meta(obj).get('namespace') or '')


def uid_of(obj: AnyObj) -> str:
    return str(meta(obj).get('uid') or '')


def labels_of(obj: AnyObj) -> dict[str, str]:
    return meta(obj).get('labels') or {}


def annotations_of(obj: AnyObj) -> dict[str, str]:
    return meta(obj).get('annotations') or {}


def key_of(obj: AnyObj) -> str:
    """`namespace/name`, or `name` for a cluster-scoped object."""
    m = meta(obj)
    namespace = m.get('namespace')
    return f'{namespace}/{m["name"]}' if namespace else str(m['name'])


def split_key(key: str) -> tuple[str, str]:
    """(namespace, name) of what `key_of` made; the namespace is empty for a cluster-scoped object."""
    namespace, _, name = key.rpartition('/')
    return namespace, name


def deleting(obj: AnyObj) -> bool:
    return bool(meta(obj).get('deletionTimestamp'))


def controller_of(obj: AnyObj) -> dict[str, Any] | None:
    """The one owner reference with `controller: true`."""
    return next((ref for ref in meta(obj).get('ownerReferences') or () if ref.get('controller')), None)


def owner_ref(owner: AnyObj, resource: Resource) -> dict[str, Any]:
    """The reference by which `owner` controls an object, blocking the owner's foreground deletion."""
    return {
        'apiVersion': resource.api_version,
        'kind': resource.kind,
        'name': name_of(owner),
        'uid': uid_of(owner),
        'controller': True,
        'blockOwnerDeletion': True,
    }


def get_path(obj: AnyObj, path: str) -> Any:
    """The value at a dotted path such as `spec.template.spec`, or None. Lists are not entered."""
    found: Any = obj
    for part in path.split('.'):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found


def get_condition(obj: AnyObj, kind: str) -> dict[str, Any] | None:
    """The entry of `status.conditions` whose type is `kind`."""
    conditions = (obj.get('status') or {}).get('conditions') or ()
    return next((c for c in conditions if c.get('type') == kind), None)


def condition_is(obj: AnyObj, kind: str, status: str = 'True') -> bool:
    found = get_condition(obj, kind)
    return found is not None and found.get('status') == status


def set_condition(obj: Obj, kind: str, status: str, now: datetime, *, reason: str = '', message: str = '') -> bool:
    """Set a condition in place; `lastTransitionTime` moves only when `status` changes. Returns whether it changed."""
    conditions: list[dict[str, Any]] = obj.setdefault('status', {}).setdefault('conditions', [])
    found = next((c for c in conditions if c.get('type') == kind), None)
    if found is None:
        found = {'type': kind}
        conditions.append(found)
    before = dict(found)
    if found.get('status') != status:
        found['status'] = status
        found['lastTransitionTime'] = format_time(now)
    for name, text in (('reason', reason), ('message', message)):
        if text:
            found[name] = text
        else:
            found.pop(name, None)
    return found != before


def is_pod_ready(pod: AnyObj) -> bool:
    return condition_is(pod, 'Ready')


def is_pod_finished(pod: AnyObj) -> bool:
    """Succeeded or Failed: its containers will never run again."""
    return (pod.get('status') or {}).get('phase') in {'Succeeded', 'Failed'}
