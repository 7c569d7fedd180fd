"""A write as seen in another version of its resource, for whoever's rules name that version.

What admission gets is in the version that the client wrote in, or, of a built-in kind with several, in the stored one.
Source: apiserver pkg/admission/plugin/webhook/generic/{webhook,conversion}.go.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kapi.admission.chain import Attributes
from kapi.registry.alias import to_served, to_stored
from kapi.registry.kind import Kind

Obj = dict[str, Any]


async def seen_as(a: Attributes, kind: Kind) -> Attributes:
    """`a` with its objects as `kind`; shares warnings and annotations. Raises InternalError of a conversion webhook."""
    if _version(kind) == _version(a.kind):
        return a
    if a.shown is not None:  # a Scale, an Eviction: it has the type that it has
        return replace(a, kind=kind, requested=a.asked)
    obj, old = await _converted(a.obj, a.kind, kind), await _converted(a.old, a.kind, kind)
    return replace(a, kind=kind, requested=a.asked, obj=obj, old=old)


async def take_over(a: Attributes, seen: Attributes) -> None:
    """Let `a.obj` be what was made of it in another version. Raises as `seen_as`, and BadRequest."""
    if seen is a or a.obj is None:
        return
    changed = seen.obj if a.shown is not None else await _converted(seen.obj, seen.kind, a.kind)
    assert changed is not None, 'no plugin takes an object away'
    if changed is not a.obj:
        a.obj.clear()
        a.obj.update(changed)


def _version(kind: Kind) -> tuple[str, str]:
    return kind.resource.group, kind.resource.version


async def _converted(obj: Obj | None, was: Kind, wanted: Kind) -> Obj | None:
    if obj is None:
        return None
    api_version = wanted.resource.api_version
    if was.conversion is not None:
        return await was.conversion.converted(obj, api_version)
    return {**to_served(wanted, to_stored(was, obj)), 'apiVersion': api_version}
