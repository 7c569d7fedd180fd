"""Server-side printing: objects as Table rows and as PartialObjectMetadata.

Source: apiserver pkg/registry/rest/table.go, endpoints/handlers/response.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from kapi.errors import BadRequest
from kapi.registry.kind import Col, Kind
from kcore.meta.objects import get_path
from kcore.meta.times import age

Obj = dict[str, Any]

NAME = Col('Name', 'metadata.name', format='name', description='Name, unique within its namespace.')
CREATED_AT = Col('Created At', 'metadata.creationTimestamp', type='date', description='When the object was created.')


def columns_of(kind: Kind) -> tuple[Col, ...]:
    if not kind.columns:
        return (NAME, CREATED_AT)
    return (NAME, *kind.columns) if kind.name_first else kind.columns


def definitions(kind: Kind) -> list[Obj]:
    return [
        {'name': c.name, 'type': c.type, 'format': c.format, 'description': c.description, 'priority': c.priority}
        for c in columns_of(kind)
    ]


def cells(kind: Kind, obj: Obj, now: datetime) -> list[Any]:
    return [_cell(c, obj, now, plain_date=not kind.columns) for c in columns_of(kind)]


def _cell(column: Col, obj: Obj, now: datetime, *, plain_date: bool) -> Any:
    value = get_path(obj, column.value) if isinstance(column.value, str) else column.value(obj, now)
    if column.type == 'date' and isinstance(column.value, str) and not plain_date:
        return age(value, now) if value else '<unknown>'
    if isinstance(value, dict | list):
        return str(value)
    return value


def partial_metadata(obj: Obj) -> Obj:
    return {'kind': 'PartialObjectMetadata', 'apiVersion': 'meta.k8s.io/v1', 'metadata': obj['metadata']}


def check_include(include: str) -> str:
    if include not in {'', 'None', 'Metadata', 'Object'}:
        raise BadRequest(f'unrecognized includeObject value: "{include}"')
    return include or 'Metadata'


def row(kind: Kind, obj: Obj, now: datetime, include: str) -> Obj:
    found: Obj = {'cells': cells(kind, obj, now)}
    if kind.row_conditions is not None and (conditions := kind.row_conditions(obj)):
        found['conditions'] = conditions
    if include == 'Object':
        found['object'] = obj
    elif include == 'Metadata':
        found['object'] = partial_metadata(obj)
    else:
        found['object'] = None
    return found


def table(
    kind: Kind,
    objects: Iterable[Obj],
    now: datetime,
    *,
    include: str,
    meta: Obj,
    version: str = 'v1',
    header: bool = True,
) -> Obj:
    """`header` False leaves out the column definitions (later events of a watch)."""
    return {
        'kind': 'Table',
        'apiVersion': f'meta.k8s.io/{version}',
        'metadata': meta,
        'columnDefinitions': definitions(kind) if header else None,
        'rows': [row(kind, obj, now, include) for obj in objects],
    }
