"""LimitRange: defaults and bounds for what one pod, container or claim may ask."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.base import PlainStrategy
from kapi.kinds.core.pod_defaults import normalize_resources
from kapi.kinds.rules import invalid, quantity, required
from kapi.registry.kind import Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path
from kcore.meta.quantity import QuantityError, parse

AMOUNTS = ('max', 'min', 'default', 'defaultRequest', 'maxLimitRequestRatio')
_ORDERED = (
    ('min', 'max'),
    ('min', 'default'),
    ('default', 'max'),
    ('min', 'defaultRequest'),
    ('defaultRequest', 'max'),
    ('defaultRequest', 'default'),
)


class LimitRangeStrategy(PlainStrategy):
    def default(self, obj: Obj) -> None:
        """For containers: `default` from `max`, `defaultRequest` from `default`, then from `min`."""
        for limit in get_path(obj, 'spec.limits') or ():
            for field in AMOUNTS:
                normalize_resources(limit.get(field))
            if limit.get('type') != 'Container':
                continue
            for target, source in (('default', 'max'), ('defaultRequest', 'default'), ('defaultRequest', 'min')):
                for name, amount in (limit.get(source) or {}).items():
                    limit.setdefault(target, {}).setdefault(name, amount)

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        for i, limit in enumerate(get_path(new, 'spec.limits') or ()):
            at = f'spec.limits[{i}]'
            if not limit.get('type'):
                yield required(f'{at}.type')
            for field in AMOUNTS:
                for name, amount in (limit.get(field) or {}).items():
                    yield from quantity(f'{at}.{field}[{name}]', amount)
            yield from _order(at, limit)


def _order(at: str, limit: Obj) -> Iterator[Invalid]:
    for low, high in _ORDERED:
        for name, amount in (limit.get(low) or {}).items():
            bound = (limit.get(high) or {}).get(name)
            try:
                wrong = bound is not None and parse(amount) > parse(bound)
            except QuantityError:
                continue
            if wrong:
                detail = f'{low} value {amount} is greater than {high} value {bound}'
                yield invalid(f'{at}.{low}[{name}]', amount, detail)


KIND = Kind(resource=Resource('', 'v1', 'limitranges', 'LimitRange'), strategy=LimitRangeStrategy(), short=('limits',))
