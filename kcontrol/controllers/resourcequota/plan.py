"""What a namespace uses, by the names that a quota limits. Pure.

The arithmetic is shared with admission: `kcore/meta/quota.py`. Source: pkg/controller/resourcequota.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from kclient.model import Obj
from kcore.meta import quantity
from kcore.meta.quota import PLAIN, STORAGE_CLASS, Amounts, in_scope, usage_of

Counted = Mapping[str, Iterable[Obj]]
"""`pods`, `services`, `deployments.apps`, … → the namespace's objects."""


def resource_of(name: str) -> str:
    """The resource whose objects a limited name needs: `requests.cpu` → `pods`, `count/jobs.batch` → `jobs.batch`."""
    if name.startswith('count/'):
        return name.removeprefix('count/')
    if name in PLAIN:
        return name
    if name.startswith('services.'):
        return 'services'
    if name == 'requests.storage' or STORAGE_CLASS in name:
        return 'persistentvolumeclaims'
    return 'pods'


def used(quota: Obj, counted: Counted) -> dict[str, str]:
    """`status.used`: every limited name with what there is of it."""
    hard = (quota.get('spec') or {}).get('hard') or {}
    total: Amounts = {name: Decimal(0) for name in hard}
    for resource in {resource_of(name) for name in hard}:
        for obj in counted.get(resource, ()):
            if not in_scope(quota, resource, obj):
                continue
            for name, amount in usage_of(resource, obj).items():
                if name in total:
                    total[name] += amount
    return {name: quantity.format(amount, quantity.format_of(hard[name])) for name, amount in total.items()}
