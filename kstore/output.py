"""What the command line prints: rows as a table for people, or one JSON object a line for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table


class UsageError(Exception):
    """Wrong arguments that argparse cannot see."""


class Output:
    """Rows as a table, or one JSON object a line."""

    def __init__(self, json: bool) -> None:
        self.json = json
        self._console = Console()

    def rows(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if self.json:
            for row in rows:
                self.object(dict(zip(columns, row, strict=True)))
            return
        table = Table(box=None, header_style='bold', pad_edge=False)
        for column in columns:
            table.add_column(column.upper(), no_wrap=True)
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        self._console.print(table)

    def object(self, value: dict[str, Any]) -> None:
        if self.json:
            sys.stdout.write(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode() + '\n')
            sys.stdout.flush()
        else:
            self._console.print(' '.join(f'{k}={v}' for k, v in value.items()), soft_wrap=True, highlight=False)


def show(data: bytes) -> str:
    """Bytes as text; what is no UTF-8 is escaped."""
    return data.decode('utf-8', 'backslashreplace')
