"""Output formats: aligned columns, the server's Table, YAML, JSON, names, custom columns, JSONPath.

Column widths follow kubectl's tab writer: three blanks between columns, at least six characters a column. As there,
they only grow while a watch goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from kctl.verbs.lib import jsonpath
from kctl.verbs.lib.errors import CliError

Obj = dict[str, Any]

PADDING = 3
COLUMN_MIN = 6


class Columns:
    """Aligns rows; remembers widths from one call to the next."""

    def __init__(self) -> None:
        self._widths: list[int] = []

    def format(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """One line a row; the last cell is not padded."""
        for row in rows:
            for i, cell in enumerate(row[:-1]):
                width = max(COLUMN_MIN, len(cell) + PADDING)
                if i == len(self._widths):
                    self._widths.append(width)
                self._widths[i] = max(self._widths[i], width)
        return [''.join([*(c.ljust(self._widths[i]) for i, c in enumerate(r[:-1])), r[-1] if r else '']) for r in rows]


def aligned(rows: Sequence[Sequence[str]]) -> str:
    return '\n'.join(Columns().format(rows))


class TablePrinter:
    """Prints server-side Tables of one resource, then the rows of its watch."""

    def __init__(
        self,
        *,
        wide: bool = False,
        namespaces: bool = False,
        show_labels: bool = False,
        headers: bool = True,
        prefix: str = '',
    ) -> None:
        self._wide, self._namespaces, self._show_labels = wide, namespaces, show_labels
        self._headers, self._prefix = headers, prefix
        self._columns = Columns()
        self._definitions: list[Obj] = []
        self._label_columns: Sequence[str] = ()

    def with_labels(self, keys: Sequence[str]) -> TablePrinter:
        """Further columns with the values of these labels (-L)."""
        self._label_columns = keys
        return self

    def lines(self, table: Obj) -> list[str]:
        """Text of a table; the header comes with the first one that has rows."""
        self._definitions = table.get('columnDefinitions') or self._definitions
        rows = [self._row(r) for r in table.get('rows') or ()]
        if not rows:
            return []
        if self._headers:
            self._headers = False
            rows.insert(0, self._header())
        return self._columns.format(rows)

    def _shown(self) -> list[int]:
        return [i for i, d in enumerate(self._definitions) if self._wide or not d.get('priority')]

    def _header(self) -> list[str]:
        names = [str(self._definitions[i]['name']).upper() for i in self._shown()]
        names += [key.rpartition('/')[2].upper() for key in self._label_columns]
        return [*(['NAMESPACE'] if self._namespaces else []), *names, *(['LABELS'] if self._show_labels else [])]

    def _row(self, row: Obj) -> list[str]:
        cells, meta = row.get('cells') or [], (row.get('object') or {}).get('metadata') or {}
        labels = meta.get('labels') or {}
        text = [cell_text(cells[i]) for i in self._shown() if i < len(cells)]
        if self._prefix and text:
            text[0] = f'{self._prefix}/{text[0]}'
        text += [labels.get(key) or '' for key in self._label_columns]
        if self._show_labels:
            text.append(','.join(f'{k}={v}' for k, v in sorted(labels.items())) or '<none>')
        return [*([str(meta.get('namespace') or '')] if self._namespaces else []), *text]


def cell_text(value: Any) -> str:
    if value is None:
        return '<none>'
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return str(value).split('\n', maxsplit=1)[0] if isinstance(value, str) else str(value)


def without_managed_fields(obj: Obj) -> Obj:
    meta = obj.get('metadata')
    if not isinstance(meta, dict) or 'managedFields' not in meta:
        return obj
    return {**obj, 'metadata': {k: v for k, v in meta.items() if k != 'managedFields'}}


def as_list(items: Iterable[Obj]) -> Obj:
    return {'apiVersion': 'v1', 'items': list(items), 'kind': 'List', 'metadata': {'resourceVersion': ''}}


_STR = 'tag:yaml.org,2002:str'
_YAML11 = {'y', 'Y', 'n', 'N'}
"""Booleans of YAML 1.1 that Go quotes and PyYAML does not."""


class _Dumper(getattr(yaml, 'CSafeDumper', yaml.SafeDumper)):  # type: ignore[misc]
    """Text of several lines as a block, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_node(dumper: Any, text: str) -> Any:
    """Several lines as a block; text that would be read back as something else in double quotes, as Go writes it."""
    style = None
    if '\n' in text:
        style = '|'
    elif dumper.resolve(yaml.ScalarNode, text, (True, False)) != _STR or text in _YAML11:
        style = '"'
    return dumper.represent_scalar(_STR, text, style=style)


_Dumper.add_representer(str, _text_node)


def to_yaml(obj: Any) -> str:
    """Keys sorted, as kubectl prints them."""
    return str(yaml.dump(obj, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, width=1_000_000))


def to_json(obj: Any) -> str:
    """Four blanks, keys sorted, and the characters that Go escapes for HTML escaped."""
    text = json.dumps(obj, indent=4, sort_keys=True, ensure_ascii=False)
    return text.replace('<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026') + '\n'


def custom_columns(spec: str, items: Sequence[Obj], *, headers: bool = True) -> str:
    """`NAME:.metadata.name,NODE:.spec.nodeName`. Raises CliError."""
    columns: list[tuple[str, str]] = []
    for part in _split_commas(spec):
        title, colon, path = part.partition(':')
        if not colon or not path:
            raise CliError(f'unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>')
        columns.append((title, path.strip('{}')))
    rows = [[title for title, _ in columns]] if headers else []
    for item in items:
        found = [jsonpath.find(path if path.startswith(('.', '[')) else f'.{path}', item) for _, path in columns]
        rows.append([','.join(_plain(v) for v in values) if values else '<none>' for values in found])
    return aligned(rows)


def _split_commas(spec: str) -> Iterable[str]:
    """Commas within brackets do not separate."""
    depth, start = 0, 0
    for i, c in enumerate(spec):
        depth += (c in '[(') - (c in '])')
        if c == ',' and depth == 0:
            yield spec[start:i]
            start = i + 1
    yield spec[start:]


def _plain(value: Any) -> str:
    if value is None:
        return '<nil>'
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, dict):
        return f'map[{" ".join(f"{k}:{_plain(v)}" for k, v in sorted(value.items()))}]'
    if isinstance(value, list):
        return f'[{" ".join(map(_plain, value))}]'
    return str(value)


def structured(output: str, items: Sequence[Obj], *, single: bool, headers: bool = True) -> str | None:
    """Text for -o yaml, json, jsonpath=…, custom-columns=…; None for formats that are not made from whole objects.

    single: one object was named, so that it is not wrapped into a List. Raises CliError.
    """
    form, _, argument = output.partition('=')
    whole = items[0] if single and len(items) == 1 else as_list(items)
    match form:
        case 'yaml':
            return to_yaml(whole)
        case 'json':
            return to_json(whole)
        case 'jsonpath' | 'jsonpath-as-json':
            if not argument:
                raise CliError('template format specified but no template given')
            return jsonpath.render(argument if '{' in argument else f'{{{argument}}}', whole)
        case 'custom-columns':
            if not argument:
                raise CliError('custom-columns format specified but no custom columns given')
            return custom_columns(argument, items, headers=headers) + '\n'
        case _:
            return None
