"""Signals and thresholds, and the kubelet's way of writing them: `memory.available<100Mi,nodefs.available<10%`.

Source: pkg/kubelet/eviction/api/types.go, pkg/kubelet/eviction/helpers.go ParseThresholdConfig.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kcore.meta import quantity

CONDITIONS: Mapping[str, str] = {
    'memory.available': 'MemoryPressure',
    'nodefs.available': 'DiskPressure',
    'nodefs.inodesFree': 'DiskPressure',
    'imagefs.available': 'DiskPressure',
    'imagefs.inodesFree': 'DiskPressure',
    'pid.available': 'PIDPressure',
}
"""Signal → the node's condition. Images are files of the node: both file systems are one."""
RESOURCES: Mapping[str, str] = {
    'memory.available': 'memory',
    'nodefs.available': 'ephemeral-storage',
    'nodefs.inodesFree': 'inodes',
    'imagefs.available': 'ephemeral-storage',
    'imagefs.inodesFree': 'inodes',
    'pid.available': 'pids',
}
_DURATION = re.compile(r'(\d+(?:\.\d+)?)(ms|h|m|s)')
_SECONDS = {'ms': 0.001, 's': 1.0, 'm': 60.0, 'h': 3600.0}


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of bytes, inodes or processes, or a share of what there is."""

    absolute: int = 0
    share: float = 0.0

    def of(self, capacity: int) -> int:
        return int(self.share * capacity) if self.share else self.absolute


@dataclass(frozen=True, slots=True)
class Threshold:
    """Met while the signal is below `least`."""

    signal: str
    least: Amount
    reclaim: Amount = Amount()
    """How far beyond `least` the signal has to come before the threshold is left."""
    grace_s: float = 0.0
    """0: a hard threshold; else how long it has to be met before pods are evicted."""


@dataclass(frozen=True, slots=True)
class Level:
    """A signal at one moment."""

    available: int
    capacity: int


def _amount(text: str) -> Amount:
    if text.endswith('%'):
        share = float(text[:-1]) / 100
        if not 0 < share < 1:
            raise ValueError(f'{text}: must be between 0% and 100%')
        return Amount(share=share)
    return Amount(quantity.value(text))


def _pairs(text: str, sign: str) -> dict[str, str]:
    found = {}
    for part in filter(None, (p.strip() for p in text.split(','))):
        signal, separator, value = part.partition(sign)
        if not separator or signal not in CONDITIONS:
            raise ValueError(f'{part!r}: must be SIGNAL{sign}VALUE with a signal of {", ".join(CONDITIONS)}')
        found[signal] = value
    return found


def duration(text: str) -> float:
    """Seconds, from Go's `1m30s`. Raises ValueError."""
    if not text or _DURATION.sub('', text):
        raise ValueError(f'{text!r} is no duration such as 1m30s')
    return sum(float(n) * _SECONDS[unit] for n, unit in _DURATION.findall(text))


def thresholds(hard: str, soft: str, soft_grace: str, reclaim: str) -> tuple[Threshold, ...]:
    """From the kubelet's four flags. Raises ValueError."""
    back = {s: _amount(v) for s, v in _pairs(reclaim, '=').items()}
    graces = {s: duration(v) for s, v in _pairs(soft_grace, '=').items()}
    found = [Threshold(s, _amount(v), back.get(s, Amount())) for s, v in _pairs(hard, '<').items()]
    for signal, value in _pairs(soft, '<').items():
        if not graces.get(signal):
            raise ValueError(f'{signal}: a soft threshold needs a grace period')
        found.append(Threshold(signal, _amount(value), back.get(signal, Amount()), graces[signal]))
    return tuple(found)
