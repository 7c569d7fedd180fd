"""What a pod asks for, or is held to, as a whole. Pure.

Containers run together; ordinary init containers run one after another before them; restartable init containers
(sidecars) start in order and stay. What the pod itself asks for stands instead of its containers' sum, and overhead
comes on top. The arithmetic does not care what an amount is: callers count in integers or in exact decimals.
Source: component-helpers/resource/helpers.go; KEP-753 (sidecars), KEP-688 (overhead), KEP-2837 (pod-level resources).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Literal, TypeVar

from kcore.meta import quantity

N = TypeVar('N', int, Decimal)
Obj = Mapping[str, Any]
Side = Literal['requests', 'limits']


def in_integers(quantities: Mapping[str, Any] | None) -> dict[str, int]:
    """cpu in millicores, everything else in whole units (bytes, pieces). Raises QuantityError."""
    return {k: quantity.milli(q) if k == 'cpu' else quantity.value(q) for k, q in (quantities or {}).items()}


def exactly(quantities: Mapping[str, Any] | None) -> dict[str, Decimal]:
    """Raises QuantityError."""
    return {k: quantity.parse(q) for k, q in (quantities or {}).items()}


def pod_total(
    spec: Obj,
    side: Side,
    amounts: Callable[[Mapping[str, Any] | None], dict[str, N]],
    of: Callable[[Obj], dict[str, N]] | None = None,
) -> dict[str, N]:
    """The most at any one moment. `of` says what one container counts for, where that is not just what it states."""
    total = _at_once(spec, of or (lambda c: amounts((c.get('resources') or {}).get(side))))
    total |= amounts((spec.get('resources') or {}).get(side))
    for name, amount in amounts(spec.get('overhead')).items():
        if side == 'requests' or name in total:  # what is not limited is not limited by overhead either
            total[name] = total[name] + amount if name in total else amount
    return total


def _at_once(spec: Obj, of: Callable[[Obj], dict[str, N]]) -> dict[str, N]:
    total: dict[str, N] = {}
    for container in spec.get('containers') or ():
        _add(total, of(container))
    sidecars: dict[str, N] = {}
    peak: dict[str, N] = {}
    for container in spec.get('initContainers') or ():
        own = dict(of(container))
        if container.get('restartPolicy') == 'Always':
            _add(total, own)
            _add(sidecars, own)
            own = dict(sidecars)
        else:
            _add(own, sidecars)
        _raise_to(peak, own)
    _raise_to(total, peak)
    return total


def _add(into: dict[str, N], more: Mapping[str, N]) -> None:
    for name, amount in more.items():
        into[name] = into[name] + amount if name in into else amount


def _raise_to(into: dict[str, N], floor: Mapping[str, N]) -> None:
    for name, amount in floor.items():
        if name not in into or amount > into[name]:
            into[name] = amount
