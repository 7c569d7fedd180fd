"""Any kind: all fields, with their names spread into words."""

from __future__ import annotations

import re
from typing import Any

from kctl.verbs.lib.describers import related
from kctl.verbs.lib.describers.page import Page, head
from kctl.verbs.lib.session import Session

Obj = dict[str, Any]

SHOWN_ABOVE = {'name', 'namespace', 'labels', 'annotations', 'managedFields'}
ACRONYMS = {'Uid': 'UID', 'Api': 'API', 'Url': 'URL', 'Id': 'ID', 'Ip': 'IP', 'Ips': 'IPs'}
_WORD = re.compile(r'[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+|[A-Z]')


def describe(session: Session, obj: Obj, page: Page) -> None:
    head(page, obj)
    if not obj['metadata'].get('namespace'):
        page.field('Namespace', '')
    page.labels(obj)
    page.annotations(obj)
    page.field('API Version', obj.get('apiVersion', ''))
    page.field('Kind', obj.get('kind', ''))
    meta = {k: v for k, v in obj['metadata'].items() if k not in SHOWN_ABOVE}
    rest = {k: v for k, v in obj.items() if k not in ('apiVersion', 'kind', 'metadata')}
    _fields(page, {'metadata': meta, **rest}, 0)
    page.events(related.events(session, obj))


def words(name: str) -> str:
    """`creationTimestamp` → `Creation Timestamp`; names that are no identifiers stay."""
    if not name.isidentifier():
        return name
    found = [w[:1].upper() + w[1:] for w in _WORD.findall(name)]
    return ' '.join(ACRONYMS.get(w, w) for w in found)


def _fields(page: Page, values: Obj, level: int) -> None:
    for name, value in sorted(values.items(), key=lambda pair: words(pair[0])):
        title = words(name)
        if isinstance(value, dict):
            page.line(f'{title}:', level)
            _fields(page, value, level + 1)
        elif isinstance(value, list):
            page.line(f'{title}:', level)
            for item in value:
                if isinstance(item, dict):
                    _fields(page, item, level + 2)
                else:
                    page.line(_plain(item), level + 1)
        else:
            page.field(title, _plain(value), level)


def _plain(value: Any) -> str:
    if value is None:
        return '<nil>'
    return str(value).lower() if isinstance(value, bool) else str(value)
