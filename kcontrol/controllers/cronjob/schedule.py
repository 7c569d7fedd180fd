"""Cron schedules in a time zone. Pure.

Five fields, or `@hourly`, `@daily`, … and `@every 1h30m`. Around a change of the clock a time that does not exist is
left out and one that exists twice is met twice, as upstream does: its parser walks real instants, and so does this one
(the six-field form switches off the parser's own rules for such days).
Source: github.com/robfig/cron v3 (spec.go, parser.go), which upstream uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_NAMED = {
    '@yearly': '0 0 1 1 *', '@annually': '0 0 1 1 *', '@monthly': '0 0 1 * *', '@weekly': '0 0 * * 0',
    '@daily': '0 0 * * *', '@midnight': '0 0 * * *', '@hourly': '0 * * * *',
}  # fmt: skip
_UNITS = {'h': 3600, 'm': 60, 's': 1}
_SECOND = timedelta(seconds=1)


class BadSchedule(ValueError):
    """The schedule cannot be read; the text is that of the event."""


class BadZone(BadSchedule):
    """There is no such time zone."""


class Schedule:
    """When a CronJob is due. All times given out are aware, in UTC."""

    def __init__(self, text: str, zone: str | None = None) -> None:
        """Raises BadSchedule."""
        text = _NAMED.get(text.strip().lower(), text.strip())
        self._every = _every(text)
        self._zone: tzinfo = UTC if zone is None else _zone(zone)
        self._text = f'0 {text.replace("?", "*")}'
        if self._every is None:
            if len(text.split()) != 5:
                found = len(text.split())
                raise BadSchedule(_unreadable(text, f'expected exactly 5 fields, found {found}: [{text}]'))
            try:
                CronSim(self._text, datetime(2000, 1, 1, tzinfo=UTC))
            except CronSimError as e:
                raise BadSchedule(_unreadable(text, str(e))) from None

    def after(self, start: datetime) -> Iterator[datetime]:
        """Times strictly after `start`, in order; ends when there is none for decades."""
        if self._every is not None:
            at = start.astimezone(UTC).replace(microsecond=0)
            while True:
                at += self._every
                yield at
        else:
            yield from (t.astimezone(UTC) for t in CronSim(self._text, start.astimezone(self._zone)))

    def next(self, start: datetime) -> datetime | None:
        return next(self.after(start), None)

    def last(self, start: datetime, end: datetime) -> datetime | None:
        """The latest time in (start, end]."""
        if self._every is not None:
            steps = (end - start.astimezone(UTC).replace(microsecond=0)) // self._every
            return start.astimezone(UTC).replace(microsecond=0) + steps * self._every if steps > 0 else None
        backwards = CronSim(self._text, (end.replace(microsecond=0) + _SECOND).astimezone(self._zone), reverse=True)
        found = next((t.astimezone(UTC) for t in backwards), None)
        return found if found is not None and found > start else None

    def missed(self, start: datetime, end: datetime, most: int) -> int:
        """How many times lie in (start, end], counted no further than `most`."""
        count = 0
        for at in self.after(start):
            if at > end or count >= most:
                break
            count += 1
        return count


def _unreadable(text: str, why: str) -> str:
    return f'unparseable schedule: "{text}" : {why}'


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise BadZone(f'invalid timeZone: "{name}": unknown time zone {name}') from None


def _every(text: str) -> timedelta | None:
    if not text.startswith('@'):
        return None
    pieces = re.findall(r'(\d+)([hms])', text.removeprefix('@every '))
    if not text.startswith('@every ') or ''.join(n + u for n, u in pieces) != text.removeprefix('@every '):
        raise BadSchedule(_unreadable(text, f'unrecognized descriptor: {text}'))
    period = timedelta(seconds=sum(int(n) * _UNITS[u] for n, u in pieces))
    return max(period, _SECOND)
