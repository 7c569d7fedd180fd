"""LimitRanger: a namespace's LimitRanges fill in what containers do not ask for, and bound what they do.

Source: plugin/pkg/admission/limitranger/admission.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.errors import Forbidden
from kapi.storage.cache import Cache
from kcore.meta import quantity
from kcore.meta.podresources import exactly, pod_total
from kcore.meta.quantity import QuantityError, parse

Obj = dict[str, Any]
LIMIT_RANGES = '/registry/limitranges/'
ANNOTATION = 'kubernetes.io/limit-ranger'


class LimitRanger(Plugin):
    name = 'LimitRanger'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE'})
    about = frozenset({('', 'pods'), ('', 'persistentvolumeclaims')})

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def _limits(self, namespace: str) -> Iterator[Obj]:
        for entry in self._cache.resource(LIMIT_RANGES).select(f'{LIMIT_RANGES}{namespace}/'):
            yield from (entry.obj.get('spec') or {}).get('limits') or ()

    async def mutate(self, a: Attributes) -> None:
        if a.operation != 'CREATE' or not a.is_for('', 'pods') or a.obj is None:
            return
        for limit in self._limits(a.namespace):
            if limit.get('type') == 'Container':
                _fill(a.obj, limit)

    async def validate(self, a: Attributes) -> None:
        pod = a.is_for('', 'pods') and a.operation == 'CREATE'
        if a.obj is None or not (pod or a.is_for('', 'persistentvolumeclaims') or a.is_for('', 'pods', 'resize')):
            return
        faults: list[str] = []
        for limit in self._limits(a.namespace):
            faults += _broken(limit, a.kind.resource.plural, a.obj.get('spec') or {})
        if faults:
            text = faults[0] if len(faults) == 1 else f'[{", ".join(faults)}]'
            raise Forbidden.on(a.kind.resource, a.name, text)


def _fill(pod: Obj, limit: Obj) -> None:
    """Defaults for each container; the annotation says which, as upstream's does."""
    notes = []
    for field, word in (('initContainers', 'init container'), ('containers', 'container')):
        for container in pod['spec'].get(field) or ():
            for side, source in (('requests', 'defaultRequest'), ('limits', 'default')):
                defaults = limit.get(source) or {}
                resources = container.setdefault('resources', {}) if defaults else container.get('resources') or {}
                given = resources.get(side) or {}
                missing = {k: v for k, v in defaults.items() if k not in given}
                if side == 'requests':
                    # A stated limit is the request where none is stated; that beats the range's default.
                    missing = {k: v for k, v in missing.items() if k not in (resources.get('limits') or {})}
                if missing:
                    resources[side] = {**given, **missing}
                    notes.append(f'{", ".join(sorted(missing))} {side[:-1]} for {word} {container.get("name", "")}')
    if notes:
        annotations = pod['metadata'].setdefault('annotations', {})
        annotations[ANNOTATION] = f'LimitRanger plugin set: {"; ".join(notes)}'


def _broken(limit: Obj, plural: str, spec: Obj) -> Iterator[str]:
    kind = limit.get('type')
    if plural == 'persistentvolumeclaims':
        if kind == 'PersistentVolumeClaim':
            resources = spec.get('resources') or {}
            requests = _amounts(resources.get('requests'))
            yield from _bounds(limit, 'PersistentVolumeClaim', requests, requests)
        return
    if kind == 'Container':
        for container in [*(spec.get('initContainers') or ()), *(spec.get('containers') or ())]:
            resources = container.get('resources') or {}
            yield from _bounds(
                limit, 'Container', _amounts(resources.get('requests')), _amounts(resources.get('limits'))
            )
    elif kind == 'Pod':
        yield from _bounds(limit, 'Pod', pod_total(spec, 'requests', exactly), pod_total(spec, 'limits', exactly))


def _amounts(listed: Obj | None) -> dict[str, Decimal]:
    found = {}
    for name, text in (listed or {}).items():
        try:
            found[name] = parse(text)
        except QuantityError:
            continue  # the kind's own rules say so
    return found


def _bounds(limit: Obj, kind: str, requests: dict[str, Decimal], limits: dict[str, Decimal]) -> Iterator[str]:
    claim = kind == 'PersistentVolumeClaim'
    for name, text in (limit.get('min') or {}).items():
        asked = requests.get(name)
        if asked is None:
            yield f'minimum {name} usage per {kind} is {text}.  No request is specified'
        elif asked < parse(text):
            yield f'minimum {name} usage per {kind} is {text}, but request is {_show(asked)}'
        elif not claim and name in limits and limits[name] < parse(text):
            yield f'minimum {name} usage per {kind} is {text}, but limit is {_show(limits[name])}'
    for name, text in (limit.get('max') or {}).items():
        bound = limits.get(name)
        if bound is None:
            yield f'maximum {name} usage per {kind} is {text}.  No limit is specified'
        elif bound > parse(text):
            yield f'maximum {name} usage per {kind} is {text}, but {"request" if claim else "limit"} is {_show(bound)}'
        elif requests.get(name, Decimal(0)) > parse(text):
            yield f'maximum {name} usage per {kind} is {text}, but request is {_show(requests[name])}'
    for name, text in (limit.get('maxLimitRequestRatio') or {}).items():
        asked, bound = requests.get(name, Decimal(0)), limits.get(name, Decimal(0))
        what = f'{name} max limit to request ratio per {kind} is {text}'
        if not asked or not bound:
            side = 'request' if not asked else 'limit'
            yield f'{what}, but no {side} is specified or {side} is 0'
        elif bound / asked > parse(text):
            yield f'{what}, but provided ratio is {float(bound / asked):.6f}'


def _show(amount: Decimal) -> str:
    return quantity.format(amount)
