"""A page of a description: indented lines whose tab-separated cells line up, and the parts that many kinds share.

Alignment follows Go's tab writer, since the layout of `kubectl describe` is a product of it: a column is as wide as its
widest cell in a run of consecutive lines that have a further cell after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kcore.env import Env
from kcore.meta.times import age, parse_time

Obj = dict[str, Any]

PADDING = 2
ANNOTATION_CHARS_MAX = 140
"""Longer annotations are cut, as kubectl does."""
HIDDEN_ANNOTATIONS = ('kubectl.kubernetes.io/last-applied-configuration',)


def tabulate(lines: Sequence[str], padding: int = PADDING) -> str:
    """Tabs become columns."""
    cells = [line.split('\t') for line in lines]
    widths = [[0] * len(row) for row in cells]
    for column in range(max((len(row) for row in cells), default=0)):
        start = 0
        while start < len(cells):
            end = start
            while end < len(cells) and len(cells[end]) > column + 1:
                end += 1
            width = max((len(cells[i][column]) for i in range(start, end)), default=0) + padding
            for i in range(start, end):
                widths[i][column] = width
            start = max(end, start + 1)
    padded = (
        [*(c.ljust(w) for c, w in zip(row[:-1], wide, strict=False)), row[-1]]
        for row, wide in zip(cells, widths, strict=True)
    )
    return '\n'.join(''.join(row) for row in padded)


class Page:
    def __init__(self) -> None:
        self._lines: list[str] = []
        self.now = Env.real().clock.wall()

    def line(self, text: str, level: int = 0) -> None:
        """`text` may hold tabs between cells."""
        self._lines.append('  ' * level + text)

    def field(self, name: str, value: Any, level: int = 0) -> None:
        self.line(f'{name}:\t{value}', level)

    def text(self) -> str:
        return tabulate(self._lines)

    def pairs(self, title: str, values: Mapping[str, Any] | None, *, separator: str = '=', level: int = 0) -> None:
        """Labels and the like: one a line, below each other."""
        shown = [f'{k}{separator}{v}' for k, v in sorted((values or {}).items())]
        for i, text in enumerate(shown or ['<none>']):
            self.line(f'{title + ":" if i == 0 else ""}\t{text}', level)

    def labels(self, obj: Obj, level: int = 0) -> None:
        self.pairs('Labels', (obj.get('metadata') or {}).get('labels'), level=level)

    def annotations(self, obj: Obj, level: int = 0) -> None:
        notes = (obj.get('metadata') or {}).get('annotations') or {}
        shown = {k: str(v) for k, v in notes.items() if k not in HIDDEN_ANNOTATIONS}
        cut = {
            k: v if len(v) <= ANNOTATION_CHARS_MAX else f'{v[:ANNOTATION_CHARS_MAX]}...'
            for k, v in ((k, ' '.join(v.split('\n'))) for k, v in shown.items())
        }
        self.pairs('Annotations', cut, separator=': ', level=level)

    def events(self, events: Iterable[Obj]) -> None:
        ordered = sorted(events, key=lambda e: str(e.get('lastTimestamp') or e.get('eventTime') or ''))
        if not ordered:
            self.field('Events', '<none>')
            return
        self.line('Events:')
        self.line('Type\tReason\tAge\tFrom\tMessage', 1)
        self.line('----\t------\t----\t----\t-------', 1)
        for event in ordered:
            cells = (
                event.get('type', ''),
                event.get('reason', ''),
                self._when(event),
                (event.get('source') or {}).get('component') or event.get('reportingComponent') or '',
                str(event.get('message', '')).strip().replace('\t', ' '),
            )
            self.line('\t'.join(cells), 1)

    def _when(self, event: Obj) -> str:
        last = age(event.get('lastTimestamp') or event.get('eventTime'), self.now)
        if (event.get('count') or 1) > 1:
            return f'{last} (x{event["count"]} over {age(event.get("firstTimestamp"), self.now)})'
        return last

    def since(self, timestamp: str | None) -> str:
        return age(timestamp, self.now)


def when(timestamp: str | None) -> str:
    """`Mon, 23 Nov 2026 07:11:59 +0000`."""
    if not timestamp:
        return '<unset>'
    try:
        return parse_time(timestamp).strftime('%a, %d %b %Y %H:%M:%S +0000')
    except ValueError:
        return timestamp


def head(page: Page, obj: Obj) -> None:
    meta = obj['metadata']
    page.field('Name', meta['name'])
    if meta.get('namespace'):
        page.field('Namespace', meta['namespace'])


def controlled_by(page: Page, obj: Obj) -> None:
    for owner in obj['metadata'].get('ownerReferences') or ():
        if owner.get('controller'):
            page.field('Controlled By', f'{owner["kind"]}/{owner["name"]}')
