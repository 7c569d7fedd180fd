"""Objects as bytes, encoded once: the store's value plus one splice is what every reader and watcher gets.

The store cannot know an object's resourceVersion before it is written, so the stored JSON has none. `encode` puts
`apiVersion`, `kind` and `metadata` first; `stamp` then inserts the version right after `"metadata":{`, whose first
occurrence is the object's own because the two values before it are names checked elsewhere.
"""

from __future__ import annotations

from typing import Any

import orjson

Obj = dict[str, Any]

_METADATA = b'"metadata":{'


def encode(obj: Obj) -> bytes:
    """The stored form: no resourceVersion, no null fields of the metadata. `obj` is not changed."""
    metadata = {k: v for k, v in obj['metadata'].items() if k not in {'resourceVersion', 'selfLink'} and v is not None}
    ordered: Obj = {'apiVersion': obj['apiVersion'], 'kind': obj['kind'], 'metadata': metadata}
    for key, value in obj.items():
        if key not in ordered:
            ordered[key] = value
    return orjson.dumps(ordered)


def stamp(value: bytes, rv: int) -> bytes:
    """The served form of a stored value."""
    at = value.index(_METADATA) + len(_METADATA)
    return b'%b"resourceVersion":"%d",%b' % (value[:at], rv, value[at:])


def clone(obj: Obj) -> Obj:
    """A deep copy of JSON; several times faster than `copy.deepcopy`."""
    copied: Obj = orjson.loads(orjson.dumps(obj))
    return copied


def decode(value: bytes, rv: int) -> Obj:
    """A fresh object that the caller may change."""
    obj: Obj = orjson.loads(value)
    obj['metadata']['resourceVersion'] = str(rv)
    return obj
