"""Kubernetes' two time formats, and ages as `kubectl` prints them.

`Time` is RFC 3339 in whole seconds, `MicroTime` has exactly six digits of fraction (client-go refuses any other
number). Ages follow apimachinery/pkg/util/duration/duration.go: precise while young, coarse when old.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_RFC3339 = re.compile(
    r'(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))', re.ASCII
)
_MINUTE = 60
_HOUR = 60 * _MINUTE


def format_time(moment: datetime) -> str:
    """`2026-01-02T03:04:05Z`; the fraction is cut off. `moment` is aware."""
    return f'{moment.astimezone(UTC).isoformat()[:19]}Z'


def format_micro(moment: datetime) -> str:
    """`2026-01-02T03:04:05.000006Z`."""
    return f'{moment.astimezone(UTC).isoformat(timespec="microseconds")[:26]}Z'


def parse_time(text: str) -> datetime:
    """An RFC 3339 time of any fraction and offset, as aware UTC. Raises ValueError."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(f'"{text}" is not an RFC 3339 time')
    *parts, fraction, sign, hours, minutes = found.groups()
    micros = int((fraction or '0')[:6].ljust(6, '0'))
    moment = datetime(*map(int, parts), micros, tzinfo=UTC)  # type: ignore[arg-type,misc]
    if not sign:
        return moment
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return moment - offset if sign == '+' else moment + offset


def human_duration(seconds: float) -> str:
    """`5s`, `3m20s`, `47m`, `5h10m`, `26h`, `4d3h`, `200d`, `3y12d`; `<invalid>` for the future."""
    s = int(seconds)
    if s < -1:
        return '<invalid>'
    if s < 2 * _MINUTE:
        return f'{max(s, 0)}s'
    minutes, hours = s // _MINUTE, s // _HOUR
    if minutes < 10:
        return _pair(minutes, 'm', s % 60, 's')
    if minutes < 180:
        return f'{minutes}m'
    if hours < 8:
        return _pair(hours, 'h', minutes % 60, 'm')
    if hours < 48:
        return f'{hours}h'
    days = hours // 24
    if days < 8:
        return _pair(days, 'd', hours % 24, 'h')
    if days < 365 * 2:
        return f'{days}d'
    if days < 365 * 8:
        return _pair(days // 365, 'y', days % 365, 'd')
    return f'{days // 365}y'


def _pair(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f'{big}{big_unit}{small}{small_unit}' if small else f'{big}{big_unit}'


def age(timestamp: str | None, now: datetime) -> str:
    """The printed age of an RFC 3339 timestamp; `<unknown>` when it is missing or broken."""
    if not timestamp:
        return '<unknown>'
    try:
        return human_duration((now - parse_time(timestamp)).total_seconds())
    except ValueError:
        return '<unknown>'
