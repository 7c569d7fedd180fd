"""The three patch formats that carry a difference: JSON Patch, JSON Merge Patch and strategic merge.

Strategic merge knows from the schema which lists join by a key, and takes directives: `$patch: delete|replace`,
`$setElementOrder/<list>`, `$deleteFromPrimitiveList/<list>`, `$retainKeys`. Directives are never stored. No function
changes its arguments; results share unchanged parts with them.
Sources: RFC 6902, RFC 7386, apimachinery/pkg/util/strategicpatch/patch.go (order of merged lists, error cases).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import orjson

from kcore.meta.schema import ANY, Node

Obj = dict[str, Any]

MAX_JSON_PATCH_OPERATIONS = 10_000
COPIED_BYTES_MAX = 3 * 1024 * 1024
"""Of JSON that the `copy` operations of one patch may add; each could double what is there (upstream's figure)."""
_SHOWN_CHARS_MAX = 200
"""Of a failed operation's path in the message."""
_REJECTED = 'the server rejected our request due to an error in our request'

_PATCH = '$patch'
_RETAIN = '$retainKeys'
_ORDER = '$setElementOrder/'
_DELETE_FROM = '$deleteFromPrimitiveList/'


class PatchError(ValueError):
    """The patch cannot be applied."""


class BadPatch(PatchError):
    """The patch itself is malformed (400)."""


class PatchFailed(PatchError):
    """A well-formed patch does not fit this object: a failed `test`, a path that is not there (422)."""


class PatchTooLarge(PatchError):
    """More operations than `MAX_JSON_PATCH_OPERATIONS` (413)."""


def json_patch(obj: Obj, operations: Sequence[Mapping[str, Any]]) -> Obj:
    """RFC 6902. Raises PatchError."""
    import jsonpatch  # noqa: PLC0415 — few requests are JSON patches, and the import is not free
    import jsonpointer  # noqa: PLC0415

    if not isinstance(operations, list) or not all(isinstance(o, dict) for o in operations):
        raise BadPatch('a JSON patch must be a list of operations')
    if len(operations) > MAX_JSON_PATCH_OPERATIONS:
        raise PatchTooLarge(
            f'The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {len(operations)}'
        )
    result: Any = copy.deepcopy(obj)
    copied = 0
    for operation in operations:
        what = f'{operation.get("op")} {operation.get("path")}'[:_SHOWN_CHARS_MAX]
        try:
            if operation.get('op') == 'copy':
                copied += len(orjson.dumps(jsonpointer.resolve_pointer(result, operation.get('from'), None)))
                if copied > COPIED_BYTES_MAX:
                    text = 'Unable to complete the copy, the accumulated size increase of copy is'
                    raise PatchFailed(f'{text} {copied}, exceeding the limit {COPIED_BYTES_MAX}')
            result = jsonpatch.JsonPatch([operation]).apply(result, in_place=True)
        except jsonpatch.InvalidJsonPatch:
            raise BadPatch(f'invalid JSON patch: {what}') from None
        except jsonpatch.JsonPatchTestFailed:
            raise PatchFailed(f'{_REJECTED}: {what}: test failed') from None
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException):
            raise PatchFailed(f'{_REJECTED}: {what}: missing path or value') from None
        except (TypeError, KeyError, IndexError, AttributeError, RecursionError):
            raise PatchFailed(f'{_REJECTED}: {what}: does not fit the object') from None
    if not isinstance(result, dict):
        raise PatchFailed('the JSON patch does not leave an object')
    return cast(Obj, result)


def merge_patch(obj: Any, patch: Any) -> Any:
    """RFC 7386: maps merge, null deletes, everything else replaces. Raises BadPatch when nested too deeply."""
    return _guarded(lambda: _merge(obj, patch))


def _merge(obj: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(obj) if isinstance(obj, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = _merge(merged.get(key), value)
        else:
            merged[key] = value
    return merged


def two_way_merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> Obj:
    """The smallest merge patch that turns `old` into `new`; empty when they are equal. Nulls in `new` are absences."""
    patch: Obj = {key: None for key in old if new.get(key) is None and old[key] is not None}
    for key, value in new.items():
        before = old.get(key)
        if value is None or value == before:
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := two_way_merge_patch(before, value):
                patch[key] = inner
        else:
            patch[key] = value
    return patch


def strategic_merge_patch(obj: Obj, patch: Obj, schema: Node) -> Obj:
    """Merge `patch` into `obj` as `schema` says. Raises BadPatch: unknown directive, missing merge key, wrong order."""
    if not isinstance(patch, dict):
        raise BadPatch('a strategic merge patch must be an object')
    return cast(Obj, _guarded(lambda: _merge_map(obj, patch, schema)))


def _guarded(merge: Callable[[], Any]) -> Any:
    try:
        return merge()
    except RecursionError:
        raise BadPatch('the patch is nested too deeply') from None


def _merge_map(original: Obj, patch: Obj, schema: Node) -> Obj:
    directive = patch.get(_PATCH)
    if directive is not None:
        if directive == 'replace':
            return cast(Obj, _without_directives({k: v for k, v in patch.items() if k != _PATCH}))
        if directive == 'delete':
            return {}
        if directive != 'merge':
            raise BadPatch(f'unknown patch type found: {directive}')
    merged = dict(original)
    if _RETAIN in patch:
        _retain_keys(merged, patch)
    done = {_PATCH, _RETAIN} | _merge_ordered_lists(merged, patch, schema)
    for key, value in patch.items():
        if key in done:
            continue
        if key.startswith(_DELETE_FROM):
            _delete_primitives(merged, key.removeprefix(_DELETE_FROM), value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_value(merged.get(key), value, schema.child(key) or ANY)
    return merged


def _merge_value(before: Any, value: Any, schema: Node) -> Any:
    if isinstance(value, dict) and isinstance(before, dict):
        if 'replace' in schema.strategies and _PATCH not in value:
            return _without_directives(value)
        return _merge_map(before, value, schema)
    if isinstance(value, list) and isinstance(before, list):
        return _merge_list(before, value, schema)
    return _without_directives(value)


def _retain_keys(merged: Obj, patch: Obj) -> None:
    keep = patch[_RETAIN]
    if not isinstance(keep, list):
        raise BadPatch(f'{_RETAIN} must be a list of field names')
    for key, value in patch.items():
        field = key.removeprefix(_ORDER).removeprefix(_DELETE_FROM)
        if key not in {_RETAIN, _PATCH} and value is not None and field not in keep:
            raise BadPatch(f'patch field {key!r} is not in its {_RETAIN} list')
    for key in [key for key in merged if key not in keep]:
        del merged[key]


def _delete_primitives(merged: Obj, key: str, doomed: Any) -> None:
    if not isinstance(doomed, list):
        raise BadPatch(f'{_DELETE_FROM}{key} must be a list')
    before = merged.get(key)
    if isinstance(before, list):
        merged[key] = [item for item in before if item not in doomed]


def _merge_ordered_lists(merged: Obj, patch: Obj, schema: Node) -> set[str]:
    """Handle every `$setElementOrder/x` together with its list `x`; returns the patch keys that are thereby done."""
    done: set[str] = set()
    for directive, order in patch.items():
        if not directive.startswith(_ORDER):
            continue
        if not isinstance(order, list):
            raise BadPatch(f'{directive} must be a list')
        key = directive.removeprefix(_ORDER)
        node = schema.child(key) or ANY
        before, value = merged.get(key), patch.get(key)
        done.add(directive)
        if key in patch and value is None:
            continue
        done.add(key)
        if value is not None:
            if not isinstance(value, list):
                raise BadPatch(f'{key} must be a list, as {directive} is given')
            _check_order(value, order, node.merge_key, directive)
        if isinstance(before, list):
            result = _merge_list(before, value, node) if value is not None else before
            merged[key] = _in_order(result, order, before, node.merge_key)
        elif value is not None:
            merged[key] = _without_directives(value)
    return done


def _check_order(value: list[Any], order: list[Any], merge_key: str, directive: str) -> None:
    """The patch's own items must come in the announced order."""
    at = 0
    for item in value:
        if isinstance(item, dict) and item.get(_PATCH) is not None:
            continue
        identity = _identity(item, merge_key)
        while at < len(order) and _identity(order[at], merge_key) != identity:
            at += 1
        if at == len(order):
            raise BadPatch(f"the order in the patch list doesn't match the {directive} list")
        at += 1


def _identity(item: Any, merge_key: str) -> Any:
    if not merge_key:
        return item
    if not isinstance(item, dict) or item.get(merge_key) is None:
        shown = ' '.join(f'{k}:{v}' for k, v in sorted(item.items())) if isinstance(item, dict) else item
        raise BadPatch(f'map: map[{shown}] does not contain declared merge key: {merge_key}'[:_SHOWN_CHARS_MAX])
    return item[merge_key]


def _merge_list(original: list[Any], patch: list[Any], schema: Node) -> list[Any]:
    if 'merge' not in schema.strategies:
        return cast(list[Any], _without_directives(patch))
    if not schema.merge_key:
        both = list(original)
        both += [item for i, item in enumerate(patch) if item not in original and item not in patch[:i]]
        return _in_order(both, patch, original, '')
    key = schema.merge_key
    items = [item for item in patch if not (isinstance(item, dict) and item.get(_PATCH) is not None)]
    kept, replace = _apply_list_directives(original, patch, key)
    if replace:
        return [_without_directives(item) for item in items]
    merged = list(kept)
    position = {_hashable(_identity(item, key)): i for i, item in reversed(list(enumerate(merged)))}
    for item in items:
        identity = _hashable(_identity(item, key))
        at = position.get(identity)
        if at is None:
            position[identity] = len(merged)
            merged.append(_without_directives(item))
        else:
            merged[at] = _merge_map(merged[at], item, schema.items or ANY)
    return _in_order(merged, items, kept, key)


def _apply_list_directives(original: list[Any], patch: list[Any], key: str) -> tuple[list[Any], bool]:
    """(what is left of the original, whether `$patch: replace` was among the items)."""
    kept, replace = original, False
    for item in patch:
        directive = item.get(_PATCH) if isinstance(item, dict) else None
        if directive == 'delete':
            doomed = item.get(key)
            if doomed is None:
                raise BadPatch('delete patch type with no merge key defined')
            kept = [o for o in kept if not (isinstance(o, dict) and o.get(key) == doomed)]
        elif directive == 'replace':
            replace = True
        elif directive == 'merge':
            raise BadPatch('merging lists cannot yet be specified in the patch')
        elif directive is not None:
            raise BadPatch(f'unknown patch type found: {directive}')
    return kept, replace


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, dict | list) else (type(value) is bool, value)


def _in_order(items: list[Any], order: list[Any], before: list[Any], key: str) -> list[Any]:
    """Items named in `order` in that order; the others keep their place relative to those that `before` knows."""
    rank = {_hashable(_identity(o, key)): i for i, o in reversed(list(enumerate(order)))}
    old = {_hashable(_identity(o, key)): i for i, o in reversed(list(enumerate(before)))}
    ids = [_hashable(_identity(item, key)) for item in items]
    named = sorted((i for i, identity in enumerate(ids) if identity in rank), key=lambda i: rank[ids[i]])
    others = sorted((i for i, identity in enumerate(ids) if identity not in rank), key=lambda i: old.get(ids[i], -1))
    out: list[Any] = []
    n = o = 0
    while n < len(named) or o < len(others):
        take_other = n == len(named)
        if n < len(named) and o < len(others):
            left, right = old.get(ids[others[o]]), old.get(ids[named[n]])
            take_other = left is not None and right is not None and left < right
        if take_other:
            out.append(items[others[o]])
            o += 1
        else:
            out.append(items[named[n]])
            n += 1
    return out


def _without_directives(value: Any) -> Any:
    """What remains of a patch value where there was nothing to merge it with: no directives, no nulls."""
    if isinstance(value, dict):
        if value.get(_PATCH) == 'delete':
            return {}
        return {
            k: _without_directives(v)
            for k, v in value.items()
            if v is not None and k not in {_PATCH, _RETAIN} and not k.startswith((_ORDER, _DELETE_FROM))
        }
    if isinstance(value, list):
        return [
            _without_directives(item) for item in value if not (isinstance(item, dict) and item.get(_PATCH) is not None)
        ]
    return value
