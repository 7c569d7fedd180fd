"""Durations on the command line: `30s`, `1m30s`, `2h`, or plain seconds."""

from __future__ import annotations

import re

from kctl.verbs.lib.errors import CliError

_UNITS = {'ms': 0.001, 's': 1.0, 'm': 60.0, 'h': 3600.0}
_PART = re.compile(r'(\d+(?:\.\d+)?)(ms|s|m|h)')


def seconds(text: str) -> float:
    """Raises CliError."""
    sign = -1.0 if text.startswith('-') else 1.0
    body = text.lstrip('+-')
    if re.fullmatch(r'\d+(\.\d+)?', body):
        return sign * float(body)
    if not body or _PART.sub('', body):
        raise CliError(f'invalid duration "{text}": expected a number with a unit, such as 30s, 5m or 1h30m')
    return sign * sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(body))
