"""Whole numbers or percentages (`IntOrString`), as rollout bounds use them."""

from __future__ import annotations


def resolve(value: int | str | None, total: int, *, up: bool) -> int:
    """`3` → 3; `'25%'` of `total`, rounded up or down. None is 0. Raises ValueError on other text."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    if not value.endswith('%'):
        raise ValueError(f'{value!r} is neither a number nor a percentage')
    exact = int(value[:-1]) * total
    return -(-exact // 100) if up else exact // 100


def rollout_bounds(surge: int | str | None, unavailable: int | str | None, replicas: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as counts; never both 0, since nothing could move then."""
    extra, missing = resolve(surge, replicas, up=True), resolve(unavailable, replicas, up=False)
    return (extra, missing) if extra or missing else (0, 1)
