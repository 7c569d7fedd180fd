"""Cells that several kinds print alike. Source of texts: pkg/printers/internalversion/printers.go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from kapi.registry.kind import Col, Obj, TextOf
from kcore.meta.objects import get_path
from kcore.meta.selectors import format_selector
from kcore.meta.times import age

NONE = '<none>'
UNSET = '<unset>'
UNKNOWN = '<unknown>'
Cell = Callable[[Obj, datetime], Any]


def age_of(obj: Obj, now: datetime) -> str:
    return age((obj.get('metadata') or {}).get('creationTimestamp'), now)


AGE = Col('Age', age_of, description='Time since the object was created.')
CREATED_AT = Col(
    'Created At', 'metadata.creationTimestamp', 'date', description='When the object was created, as an RFC 3339 time.'
)


def text(path: str, default: str = '') -> Cell:
    """The text at `path`; `default` when absent or empty."""

    def cell(obj: Obj, _now: datetime) -> str:
        found = get_path(obj, path)
        return default if found in (None, '') else str(found)

    return cell


def number(path: str, default: int = 0) -> Cell:
    def cell(obj: Obj, _now: datetime) -> int:
        found = get_path(obj, path)
        return default if found is None else int(found)

    return cell


def flag(path: str) -> Cell:
    """True or False; an absent field is False."""
    return lambda obj, _now: bool(get_path(obj, path))


def boolean(path: str) -> TextOf:
    """For field selectors: `true` or `false`; an absent field is false."""
    return lambda obj: 'true' if get_path(obj, path) else 'false'


def age_at(path: str, default: str = UNKNOWN) -> Cell:
    """The age of the timestamp at `path`."""

    def cell(obj: Obj, now: datetime) -> str:
        found = get_path(obj, path)
        return age(found, now) if found else default

    return cell


def format_labels(values: Mapping[str, str] | None) -> str:
    return ','.join(f'{k}={v}' for k, v in sorted((values or {}).items())) or NONE


def labels_at(path: str) -> Cell:
    return lambda obj, _now: format_labels(get_path(obj, path))


def selector_at(path: str) -> Cell:
    return lambda obj, _now: format_selector(get_path(obj, path))


def containers_cell(field: str, path: str = 'spec.template.spec') -> Cell:
    """Comma-joined names or images of a template's containers."""

    def cell(obj: Obj, _now: datetime) -> str:
        spec = get_path(obj, path) or {}
        return ','.join(str(c.get(field, '')) for c in spec.get('containers') or ())

    return cell


CONTAINERS = Col(
    'Containers', containers_cell('name'), priority=1, description='Names of the containers in the template.'
)
IMAGES = Col('Images', containers_cell('image'), priority=1, description='Images of the containers in the template.')
SELECTOR = Col('Selector', selector_at('spec.selector'), priority=1, description='Label selector of the owned pods.')


def balancer_addresses(obj: Obj) -> list[str]:
    """Where a load balancer is reached: of each entry its IP, or else its host name."""
    entries = get_path(obj, 'status.loadBalancer.ingress') or ()
    return sorted({str(e.get('ip') or e.get('hostname') or '') for e in entries} - {''})


def count_of(*paths: str) -> Cell:
    """How many entries the maps or lists at the paths have together."""
    return lambda obj, _now: sum(len(get_path(obj, path) or ()) for path in paths)
