"""What the command line prints: rows as a table for people, or one JSON object a line for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH_MAX = 10_000
"""Of a table that no person watches: nothing is folded."""


class UsageError(Exception):
    """Wrong arguments that argparse cannot see."""


class Output:
    """Rows as a table, or one JSON object a line."""

    def __init__(self, json: bool) -> None:
        self.json = json
        self._console = Console(width=None if sys.stdout.isatty() else WIDTH_MAX)

    def rows(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if self.json:
            for row in rows:
                self.object(dict(zip(columns, row, strict=True)))
            return
        table = Table(box=None, header_style='bold', pad_edge=False)
        for column in columns:
            table.add_column(column.upper(), overflow='fold')
        for row in rows:
            table.add_row(*(Text(_harmless(str(cell))) for cell in row))
        self._console.print(table)

    def object(self, value: dict[str, Any]) -> None:
        if self.json:
            sys.stdout.write(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode() + '\n')
            sys.stdout.flush()
        else:
            line = ' '.join(f'{k}={_harmless(str(v))}' for k, v in value.items())
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)


def show(data: bytes) -> str:
    """Bytes as text; what is no UTF-8 is escaped."""
    return data.decode('utf-8', 'backslashreplace')


def _harmless(text: str) -> str:
    """What a stored value could do to a terminal, escaped."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)
