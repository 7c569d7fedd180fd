"""Who set which field: server-side apply and the bookkeeping of every other write, as pure functions.

*Apply*: the live object is merged with a manager's configuration; a field that another manager owns and that would
change is a conflict, unless forced; a field that this manager applied before and now leaves out goes away when nobody
else owns it. *Update*: what a write changed becomes its manager's.
Source: sigs.k8s.io/structured-merge-diff merge/update.go, apimachinery/pkg/util/managedfields/internal/.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

import orjson

from kcore.meta.fieldsets import (
    Path,
    contains,
    decode,
    describe,
    diff,
    element_of,
    encode,
    has_descendant,
    leaves,
    show,
)
from kcore.meta.schema import ANY, Node
from kcore.meta.times import format_time

Obj = dict[str, Any]

UPDATE_MANAGERS_MAX = 10
"""More managers of plain updates than this are merged into one, oldest first."""
ANCIENT = 'ancient-changes'
BEFORE_FIRST_APPLY = 'before-first-apply'
KUBECTL = 'kubectl'
LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration'

_SERVER_METADATA = frozenset(
    (
        'name', 'namespace', 'creationTimestamp', 'selfLink', 'uid', 'clusterName', 'generation', 'managedFields',
        'resourceVersion',
    )
)  # fmt: skip


class FieldsError(ValueError):
    """The applied configuration itself is malformed (400)."""


@dataclass(frozen=True, slots=True)
class Manager:
    """Who writes, and how; each distinct one has an entry of its own."""

    name: str
    operation: Literal['Apply', 'Update']
    api_version: str
    subresource: str = ''


class Owned:
    """One entry of managedFields. Its FieldsV1 is taken apart only when it must change, which is seldom."""

    __slots__ = ('_fields', '_paths', 'manager', 'time')

    def __init__(self, manager: Manager, paths: set[Path] | None = None, time: str = '', *, fields: Any = None) -> None:
        self.manager = manager
        self.time = time
        self._paths = paths
        self._fields = fields

    @property
    def paths(self) -> set[Path]:
        """May be changed."""
        if self._paths is None:
            self._paths = decode(self._fields)
        return self._paths

    @paths.setter
    def paths(self, paths: set[Path]) -> None:
        self._paths = paths

    def holds(self, path: Path) -> bool:
        return contains(self._fields, path) if self._paths is None else path in self._paths

    @property
    def fields(self) -> Obj:
        """FieldsV1, empty when nothing is owned."""
        if self._paths is not None:
            return encode(self._paths)
        return self._fields if isinstance(self._fields, dict) else {}


@dataclass(frozen=True, slots=True)
class FieldConflict:
    owner: Manager
    time: str
    path: Path

    def cause(self) -> dict[str, str]:
        """A cause of the 409."""
        return {'reason': 'FieldManagerConflict', 'message': f'conflict with {_shown(self)}', 'field': show(self.path)}


@dataclass(slots=True)
class Applied:
    """Result of `apply`; with conflicts, `merged` is not to be stored."""

    merged: Obj
    conflicts: list[FieldConflict] = field(default_factory=list)


def conflict_message(conflicts: Sequence[FieldConflict]) -> str:
    """The message of the 409."""
    if len(conflicts) == 1:
        only = conflicts[0]
        return f'Apply failed with 1 conflict: conflict with {_shown(only)}: {show(only.path)}'
    by_owner: dict[str, list[str]] = {}
    for conflict in conflicts:
        by_owner.setdefault(_shown(conflict), []).append(show(conflict.path))
    lines: list[str] = []
    for owner, paths in sorted(by_owner.items()):
        lines += [f'conflicts with {owner}:', *(f'- {path}' for path in paths)]
    return f'Apply failed with {len(conflicts)} conflicts: ' + '\n'.join(lines)


def _shown(conflict: FieldConflict) -> str:
    owner = conflict.owner
    text = f'"{owner.name}"'
    if owner.subresource:
        text += f' with subresource "{owner.subresource}"'
    if owner.operation == 'Update':
        text += f' using {owner.api_version}'
        if conflict.time:
            text += f' at {conflict.time}'
    return text


# — managedFields —


def read_managed(entries: Any) -> list[Owned]:
    """Entries of `metadata.managedFields`; malformed ones are left out."""
    found: list[Owned] = []
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or entry.get('operation') not in {'Apply', 'Update'}:
            continue
        who = Manager(
            str(entry.get('manager') or ''),
            entry['operation'],
            str(entry.get('apiVersion') or ''),
            str(entry.get('subresource') or ''),
        )
        found.append(Owned(who, time=str(entry.get('time') or ''), fields=entry.get('fieldsV1')))
    return found


def write_managed(owned: Iterable[Owned]) -> list[Obj]:
    """`metadata.managedFields`: applies first, then by time; entries that own nothing are dropped."""
    order = sorted(
        owned, key=lambda o: (o.manager.operation, o.time, o.manager.name, o.manager.api_version, o.manager.subresource)
    )
    return [_entry(o.manager, o.time, fields) for o in order if (fields := o.fields)]


def _entry(who: Manager, time: str, owned: Obj) -> Obj:
    entry: Obj = {'manager': who.name, 'operation': who.operation, 'apiVersion': who.api_version}
    if time:
        entry['time'] = time
    entry['fieldsType'] = 'FieldsV1'
    entry['fieldsV1'] = owned
    if who.subresource:
        entry['subresource'] = who.subresource
    return entry


def is_reset(entries: Any) -> bool:
    """Whether a client asks for managedFields to be emptied: `[]` or `[{}]`."""
    return isinstance(entries, list) and all(entry == {} for entry in entries)


def _own(owned: list[Owned], who: Manager) -> Owned:
    found = next((o for o in owned if o.manager == who), None)
    if found is None:
        found = Owned(who, set())
        owned.append(found)
    return found


def _ownable(obj: Obj, subresource: str, *, has_status: bool) -> Obj:
    """The part that a manager may own through this endpoint: status or the rest, never what the server sets."""
    skip = 'status' if has_status and not subresource else 'spec' if subresource == 'status' else ''
    kept = {k: v for k, v in obj.items() if k not in {'apiVersion', 'kind', 'metadata', skip}}
    metadata = {k: v for k, v in (obj.get('metadata') or {}).items() if k not in _SERVER_METADATA}
    return {**kept, 'metadata': metadata} if metadata else kept


# — update —


def record_update(
    live: Obj | None, new: Obj, schema: Node, who: Manager, now: datetime, *, has_status: bool = True
) -> list[Obj]:
    """managedFields after `who` turned `live` (None: nothing) into `new`; neither is changed."""
    after = _ownable(new, who.subresource, has_status=has_status)
    if live is None:
        everything = describe(after, schema)
        return [_entry(who, format_time(now), everything)] if everything else []
    before = _ownable(live, who.subresource, has_status=has_status)
    changed, removed = diff(before, after, schema)
    entries = live.get('metadata', {}).get('managedFields')
    if is_reset((new.get('metadata') or {}).get('managedFields')) and entries:
        entries = []
    if not changed and not removed:
        return list(entries or ())
    owned = read_managed(entries)
    for owner in owned:
        lost = removed if owner.manager == who else changed | removed
        if any(owner.holds(path) for path in lost):
            owner.paths -= lost
    mine = _own(owned, who)
    gained = {path for path in changed if not mine.holds(path)}
    if gained or mine.time == '':
        mine.time = format_time(now)
        mine.paths |= gained
    return write_managed(_cap(owned))


def _cap(owned: list[Owned]) -> list[Owned]:
    updates = sorted((o for o in owned if o.manager.operation == 'Update' and o.fields), key=lambda o: o.time)
    surplus = updates[: max(0, len(updates) - UPDATE_MANAGERS_MAX)]
    if not surplus:
        return owned
    surplus = updates[: len(updates) - UPDATE_MANAGERS_MAX + 1]
    kept = [o for o in owned if o not in surplus]
    for old in surplus:
        bucket = _own(kept, replace(old.manager, name=ANCIENT, subresource=''))
        bucket.paths |= old.paths
        bucket.time = max(bucket.time, old.time)
    return kept


# — apply —


def apply(live: Obj | None, config: Obj, schema: Node, who: Manager, now: datetime, *, force: bool = False) -> Applied:
    """Server-side apply of `config` by `who`. Changes neither argument. Raises FieldsError: duplicate list items.

    The result's managedFields are up to date; they equal the live ones (time and all) when nothing changed.
    """
    has_status = 'status' in schema.fields
    current: Obj = live if live is not None else {}
    wanted = leaves(_ownable(config, who.subresource, has_status=has_status), schema)
    owned = read_managed((current.get('metadata') or {}).get('managedFields'))
    if live is not None and not owned:
        everything = set(leaves(_ownable(live, '', has_status=has_status), schema))
        owned.append(Owned(Manager(BEFORE_FIRST_APPLY, 'Update', who.api_version), everything, format_time(now)))
    mine = _own(owned, who)
    last = mine.paths
    others = [o for o in owned if o is not mine]
    merged = _merge(current, config, schema)
    taken: set[Path] = set().union(*(o.paths for o in others))
    merged = _prune(merged, schema, last - wanted.keys(), wanted.keys() | taken)

    changed, gone = diff(current, merged, schema)
    conflicts = [FieldConflict(o.manager, o.time, p) for o in others for p in sorted(o.paths & changed)]
    conflicts = _without_client_side(conflicts, current, schema, who)
    if conflicts and not force:
        return Applied(merged, conflicts)
    for other in others:
        other.paths -= changed | gone
    if mine.paths != wanted.keys() or changed or gone or not mine.time:
        mine.time = format_time(now)
    mine.paths = set(wanted)
    managed = write_managed(owned)
    merged = {**merged, 'metadata': {**(merged.get('metadata') or {}), 'managedFields': managed}}
    return Applied(merged)


def _without_client_side(conflicts: list[FieldConflict], live: Obj, schema: Node, who: Manager) -> list[FieldConflict]:
    """kubectl may take over what it itself last applied client-side, as the annotation on the object tells."""
    text = ((live.get('metadata') or {}).get('annotations') or {}).get(LAST_APPLIED)
    if who.name != KUBECTL or not text or not conflicts:
        return conflicts
    try:
        last = leaves(orjson.loads(text), schema)
    except (orjson.JSONDecodeError, AttributeError):
        return conflicts
    return [
        c for c in conflicts if c.path not in last and c.path != ('f:metadata', 'f:annotations', f'f:{LAST_APPLIED}')
    ]


def merge(live: Any, config: Any, schema: Node) -> Any:
    """What applying `config` makes of `live`, whoever owns what: nothing is taken away. Raises FieldsError."""
    return _merge(live, config, schema)


def _merge(live: Any, config: Any, node: Node) -> Any:
    if isinstance(config, dict) and isinstance(live, dict) and not (node.atomic and node.type != 'any'):
        merged = dict(live)
        for key, value in config.items():
            child = node.child(key) or ANY
            merged[key] = _merge(live[key], value, child) if key in live else _fresh(value, child)
        return merged
    if isinstance(config, list) and node.list_type != 'atomic':
        return _merge_list(live if isinstance(live, list) else [], config, node)
    return copy.deepcopy(config)


def _fresh(value: Any, node: Node) -> Any:
    """A deep copy that checks list items for duplicates on the way."""
    if isinstance(value, dict):
        return {key: _fresh(item, node.child(key) or ANY) for key, item in value.items()}
    if isinstance(value, list) and node.list_type != 'atomic':
        return _merge_list([], value, node)
    return copy.deepcopy(value)


def _merge_list(live: list[Any], config: list[Any], node: Node) -> list[Any]:
    """Live items keep their order and come before new ones; shared ones follow the configuration's order."""
    wanted: dict[str, Any] = {}
    for item in config:
        element = element_of(item, node)
        if element in wanted:
            raise FieldsError(f'duplicate entries for key [{element.partition(":")[2]}]')
        wanted[element] = item
    known = {element_of(item, node): item for item in live}
    shared = iter([e for e in wanted if e in known])
    order = [next(shared) if element in wanted else element for element in known]
    order += [e for e in wanted if e not in known]
    child = node.items or ANY
    return [
        _merge(known[e], wanted[e], child) if e in wanted and e in known
        else _fresh(wanted[e], child) if e in wanted
        else known[e]
        for e in order
    ]  # fmt: skip


def _prune(obj: Obj, schema: Node, dropped: set[Path], owned: Iterable[Path]) -> Obj:
    """Remove the dropped paths that nobody owns, and whatever map or list that leaves empty."""
    kept = set(owned)
    doomed = {p for p in dropped if p not in kept and not has_descendant(p, kept)}
    return _remove(obj, schema, (), doomed) if doomed else obj


def _remove(value: Any, node: Node, at: Path, doomed: set[Path]) -> Any:
    if isinstance(value, dict) and has_descendant(at, doomed):
        protected = _key_fields(at)
        out: Obj = {}
        for key, item in value.items():
            where = (*at, f'f:{key}')
            if where in doomed and key not in protected:
                continue
            left = _remove(item, node.child(key) or ANY, where, doomed)
            if left in ({}, []) and item not in ({}, []):
                continue
            out[key] = left
        return out
    if isinstance(value, list) and node.list_type != 'atomic' and has_descendant(at, doomed):
        return list(_remove_items(value, node, at, doomed))
    return value


def _remove_items(value: list[Any], node: Node, at: Path, doomed: set[Path]) -> Iterator[Any]:
    for item in value:
        where = (*at, element_of(item, node))
        if where not in doomed:
            yield _remove(item, node.items or ANY, where, doomed)


def _key_fields(at: Path) -> Mapping[str, Any]:
    """The fields by which the list item at this path is known; they stay as long as the item does."""
    if at and at[-1].startswith('k:'):
        found: dict[str, Any] = orjson.loads(at[-1][2:])
        return found
    return {}
