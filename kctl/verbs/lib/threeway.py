"""The three-way patch of `apply`: from what was applied last, what is wanted now, and what is live.

What the manifest dropped since the last time is removed, what it says is set, everything else (defaults, other writers'
fields) stays. Lists whose schema has a merge key are merged by it. The patch is a strategic merge patch; without a
schema (custom resources) a JSON merge patch, which replaces lists whole.
Source: Kubernetes documentation, "How apply calculates differences and merges changes".
"""

from __future__ import annotations

from typing import Any

from kcore.meta.schema import ANY, Node

Obj = dict[str, Any]


def patch(last: Obj, wanted: Obj, live: Obj, schema: Node | None) -> Obj:
    """Empty when there is nothing to do. `schema` None: a JSON merge patch."""
    return _Diff(strategic=schema is not None).maps(last, wanted, live, schema or ANY)


class _Diff:
    def __init__(self, *, strategic: bool) -> None:
        self._strategic = strategic

    def maps(self, last: Obj, wanted: Obj, live: Obj, schema: Node) -> Obj:
        changes: Obj = {k: None for k in last if k not in wanted and live.get(k) is not None}
        for key, value in wanted.items():
            if value is None:
                if live.get(key) is not None:
                    changes[key] = None
                continue
            child = schema.child(key) or ANY
            changes |= self._field(key, last.get(key), value, live.get(key), child)
        if changes and self._strategic and 'retainKeys' in schema.strategies:
            changes['$retainKeys'] = sorted(wanted)
        return changes

    def _field(self, key: str, last: Any, wanted: Any, live: Any, schema: Node) -> Obj:
        """The entries that this field needs in the patch of its object."""
        if isinstance(wanted, dict) and isinstance(live, dict):
            inner = self.maps(last if isinstance(last, dict) else {}, wanted, live, schema)
            return {key: inner} if inner else {}
        if not isinstance(wanted, list) or not isinstance(live, list) or not self._merges(schema):
            return {} if wanted == live else {key: wanted}
        before = last if isinstance(last, list) else []
        if schema.merge_key:
            return self._objects(key, before, wanted, live, schema)
        added = [v for v in wanted if v not in live]
        removed = [v for v in before if v not in wanted and v in live]
        return ({key: added} if added else {}) | ({f'$deleteFromPrimitiveList/{key}': removed} if removed else {})

    def _merges(self, schema: Node) -> bool:
        return self._strategic and 'merge' in schema.strategies

    def _objects(self, key: str, last: list[Any], wanted: list[Any], live: list[Any], schema: Node) -> Obj:
        """A list of objects that is merged by the value of one field."""
        by = schema.merge_key
        if not all(isinstance(i, dict) and by in i for i in (*wanted, *live)):
            return {} if wanted == live else {key: wanted}
        known, before = {i[by]: i for i in live}, {i[by]: i for i in last if isinstance(i, dict) and by in i}
        names = [i[by] for i in wanted]
        changes: list[Obj] = []
        for item in wanted:
            present = known.get(item[by])
            if present is None:
                changes.append(item)
                continue
            inner = self.maps(before.get(item[by], {}), item, present, schema.items or ANY)
            if 'retainKeys' in schema.strategies and inner:
                inner['$retainKeys'] = sorted(item)
            if inner:
                changes.append({by: item[by], **inner})
        changes += [{'$patch': 'delete', by: name} for name in before if name not in names and name in known]
        if not changes:
            return {}
        return {key: changes, f'$setElementOrder/{key}': [{by: name} for name in names]}
