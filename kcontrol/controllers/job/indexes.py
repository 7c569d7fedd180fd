"""Completion indexes as a Job's status writes them: `0-2,5,7-9`. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kclient.model import Obj
from kcore.meta.objects import annotations_of

INDEX = 'batch.kubernetes.io/job-completion-index'


def parse(text: str | None) -> set[int]:
    """Unreadable parts are skipped: a status must never stop a Job."""
    found: set[int] = set()
    for part in (text or '').split(','):
        first, _, last = part.partition('-')
        if first.isdigit() and (last or first).isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return found


def show(indexes: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ','.join(str(a) if a == b else f'{a}-{b}' for a, b in runs)


def index_of(pod: Obj) -> int | None:
    text = annotations_of(pod).get(INDEX, '')
    return int(text) if text.isdigit() else None
