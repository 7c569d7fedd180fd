"""Which objects a list or watch is about: label and field selectors compiled into one test on a cache entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kapi.errors import BadRequest
from kapi.registry.conversion import Conversion
from kapi.registry.kind import Kind, TextOf
from kapi.registry.options import ListOptions
from kapi.storage.entries import Entry
from kapi.storage.watchers import Matches
from kcore.meta.objects import get_path
from kcore.meta.selectors import FieldSelector, LabelSelector, SelectorError, parse_field_selector, parse_label_selector

Obj = dict[str, Any]
SELECTOR_CHARS_MAX = 32_768
"""Longer selector texts are refused before they are parsed."""


@dataclass(frozen=True, slots=True)
class Selection:
    labels: LabelSelector
    fields: FieldSelector
    name: str | None
    """The one name that can match, when the field selector says so."""
    matches: Matches | None
    """None matches everything."""
    asks: bool = False
    """Whether entries must be converted before `matches` can judge them."""


def field_text(obj: Obj, path: str | TextOf) -> str:
    """A field as selectors compare it: empty when absent, `true`/`false` for booleans."""
    if not isinstance(path, str):
        return path(obj)
    value = get_path(obj, path)
    if value is None:
        return ''
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return str(value)


def select(kind: Kind, options: ListOptions) -> Selection:
    """Raises BadRequest: unparsable selector, field that cannot be selected."""
    if len(options.label_selector) + len(options.field_selector) > SELECTOR_CHARS_MAX:
        raise BadRequest('the selectors are too long')
    try:
        labels = parse_label_selector(options.label_selector)
        fields = parse_field_selector(options.field_selector)
    except SelectorError as e:
        raise BadRequest(str(e)) from None
    paths = _paths(kind)
    for requirement in fields.requirements:
        if requirement.field not in paths:
            raise BadRequest(_unsupported(kind, requirement.field))
    matches = _matches(labels, fields, paths)
    custom = any(r.field in kind.selectable for r in fields.requirements)
    asks = kind.conversion is not None and not kind.conversion.simple and custom
    return Selection(labels, fields, fields.exact('metadata.name'), _seen(kind.conversion, matches), asks)


def _paths(kind: Kind) -> dict[str, str | TextOf]:
    """Field selector label → where it points. Without a namespace, kinds with labels of their own cannot select it."""
    found: dict[str, str | TextOf] = {'metadata.name': 'metadata.name', **kind.selectable}
    if kind.resource.namespaced or not _own_labels(kind):
        found['metadata.namespace'] = 'metadata.namespace'
    return found


def _own_labels(kind: Kind) -> bool:
    return bool(kind.selectable or kind.edition)


def _unsupported(kind: Kind, field: str) -> str:
    if _own_labels(kind):
        return f'field label not supported: {field}'
    return f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def _seen(conversion: Conversion | None, matches: Matches | None) -> Matches | None:
    """`matches` on what readers of the version see."""
    if conversion is None or matches is None:
        return matches
    seen = conversion.seen
    return lambda entry: matches(seen(entry) or entry)


def _matches(labels: LabelSelector, fields: FieldSelector, paths: Mapping[str, str | TextOf]) -> Matches | None:
    if labels.empty and fields.empty:
        return None
    wanted = [(paths[r.field], r.value, r.op == '=') for r in fields.requirements]

    def matches(entry: Entry) -> bool:
        obj = entry.obj
        for path, value, equal in wanted:
            if (field_text(obj, path) == value) != equal:
                return False
        return labels.matches(obj['metadata'].get('labels'))

    return matches
