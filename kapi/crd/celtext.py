"""Conversions between CEL's types as cel-go makes them, where the evaluator has others or none.

Times and durations are those of Python here, to the microsecond.
Source: cel-go common/types (ConvertToType), ext/formatting.go; the cel-spec's tests of conversions and timestamps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from math import isfinite
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

SECOND, MICROSECOND = timedelta(seconds=1), timedelta(microseconds=1)
_OFFSET = re.compile(r'([+-]?)(\d{1,2}):(\d{2})')
_FORMAT = re.compile(r'%(?:\.(\d+))?([sdfexXob%])')


class NoOverload(TypeError):
    def __init__(self) -> None:
        super().__init__('no such overload')


def text(value: Any) -> str:
    """`string(value)`."""
    match value:
        case bool():
            return 'true' if value else 'false'
        case str() | int():
            return str(value)
        case float():
            return _number(value)
        case timedelta():
            return f'{_plain(Decimal(value // MICROSECOND) / 1_000_000)}s'
        case datetime():
            return _time(value)
        case bytes():
            return _decoded(value)
        case _:
            raise NoOverload


def _plain(amount: Decimal) -> str:
    whole = f'{amount:f}'
    return whole.rstrip('0').rstrip('.') if '.' in whole else whole


def _number(value: float) -> str:
    """As Go's `%g`: the shortest text that is the same number, with an exponent below -4 and above 5."""
    if not isfinite(value):
        return {'inf': '+Inf', '-inf': '-Inf'}.get(str(value), 'NaN')
    exact = Decimal(repr(value))
    if not value or -4 <= exact.adjusted() < 6:
        return _plain(exact)
    sign, (first, *rest), _ = exact.normalize().as_tuple()
    fraction = ''.join(map(str, rest))
    return f'{"-" * sign}{first}{"." if fraction else ""}{fraction}e{exact.adjusted():+03d}'


def _time(value: datetime) -> str:
    base, fraction = f'{value:%Y-%m-%dT%H:%M:%S}'.rjust(19, '0'), f'{value.microsecond:06d}'.rstrip('0')
    offset = value.utcoffset() or timedelta()
    zone = 'Z' if not offset else f'{value:%z}'[:3] + ':' + f'{value:%z}'[3:5]
    return f'{base}{"." if fraction else ""}{fraction}{zone}'


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError('invalid UTF-8 in bytes, cannot convert to string') from None


def integer(value: Any) -> int:
    """`int(value)`, where the evaluator has no overload: seconds since 1970, or nanoseconds."""
    match value:
        case datetime():
            return (value - datetime.fromtimestamp(0, UTC)) // SECOND
        case timedelta():
            return value // MICROSECOND * 1_000
        case _:
            raise NoOverload


def time(value: Any) -> datetime:
    """`timestamp(seconds)`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise NoOverload
    return datetime.fromtimestamp(0, UTC) + value * SECOND


def duration(value: Any) -> timedelta:
    """`duration(nanoseconds)`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise NoOverload
    return value // 1_000 * MICROSECOND


def _zone(name: str) -> tzinfo:
    if (offset := _OFFSET.fullmatch(name)) is not None:
        sign, hours, minutes = offset.groups()
        east = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-east if sign == '-' else east)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f'unknown time zone {name}') from None


def _in_zone(part: Callable[[datetime], int]) -> Callable[[Any, Any], int]:
    def get(value: Any, zone: Any) -> int:
        if not isinstance(value, datetime) or not isinstance(zone, str):
            raise NoOverload
        return part(value.astimezone(_zone(zone)))

    return get


def format_text(template: str, values: list[Any]) -> str:
    """`template.format(values)`."""
    left = list(values)

    def one(found: re.Match[str]) -> str:
        digits, verb = found.groups()
        if verb == '%':
            return '%'
        if not left:
            raise ValueError('index out of range of format arguments')
        return _clause(verb, digits or '6', left.pop(0))

    return _FORMAT.sub(one, template)


def _clause(verb: str, digits: str, value: Any) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    match verb:
        case 's':
            return _shown(value)
        case 'f' | 'e' if isinstance(value, int | float) and not isinstance(value, bool):
            return format(float(value), f'.{digits}{verb}')
        case 'b' if isinstance(value, bool):
            return str(int(value))
        case 'x' | 'X' if isinstance(value, str | bytes):
            found = (value.encode() if isinstance(value, str) else value).hex()
            return found.upper() if verb == 'X' else found
        case 'd' | 'b' | 'o' | 'x' | 'X' if whole:
            return format(value, verb)
        case _:
            raise NoOverload


def _shown(value: Any) -> str:
    match value:
        case None:
            return 'null'
        case list():
            return f'[{", ".join(map(_literal, value))}]'
        case Mapping():
            return f'{{{", ".join(sorted(f"{_literal(k)}:{_literal(v)}" for k, v in value.items()))}}}'
        case _:
            return text(value)


def _literal(value: Any) -> str:
    """An element of a list or a map."""
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False)
        case bytes():
            return f'b{json.dumps(_decoded(value), ensure_ascii=False)}'
        case float():
            return f'{value:.6f}'
        case datetime():
            return f'timestamp("{text(value)}")'
        case timedelta():
            return f'duration("{text(value)}")'
        case _:
            return _shown(value)


CONVERSIONS: Mapping[str, Callable[..., Any]] = {
    'int': integer, 'timestamp': time, 'duration': duration, 'format': format_text,
    'getFullYear': _in_zone(lambda t: t.year), 'getMonth': _in_zone(lambda t: t.month - 1),
    'getDate': _in_zone(lambda t: t.day), 'getDayOfMonth': _in_zone(lambda t: t.day - 1),
    'getDayOfWeek': _in_zone(lambda t: t.isoweekday() % 7),
    'getDayOfYear': _in_zone(lambda t: t.timetuple().tm_yday - 1),
    'getHours': _in_zone(lambda t: t.hour), 'getMinutes': _in_zone(lambda t: t.minute),
    'getSeconds': _in_zone(lambda t: t.second), 'getMilliseconds': _in_zone(lambda t: t.microsecond // 1_000),
}  # fmt: skip
"""Asked only where the evaluator has no overload of its own."""
