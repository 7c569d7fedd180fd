"""Let equal parts of decoded objects be the same parts: ten thousand pods of one template cost little more than one.

Pure. Objects that share are read-only, all of them.
"""

from __future__ import annotations

from typing import Any

import orjson


def share(new: Any, model: Any) -> Any:
    """`new` with every part that is equal in `model` replaced by that part; `model` itself when all of it is equal.

    Changes `new`. Equal means the same JSON: 1, 1.0 and true differ. Both are what a JSON decoder makes.
    """
    kind = type(new)
    if kind is not type(model):
        return new
    if kind is str:
        return model if new == model else new
    if kind is dict:
        if new == model and _same_json(new, model):
            return model
        for key, value in new.items():
            theirs = model.get(key)
            if theirs is not None and theirs is not value:
                new[key] = share(value, theirs)
    elif kind is list:
        if new == model and _same_json(new, model):
            return model
        for at, (value, theirs) in enumerate(zip(new, model, strict=False)):
            new[at] = share(value, theirs)
    return new


def _same_json(new: Any, model: Any) -> bool:
    """Python takes True, 1 and 1.0 for equal."""
    return orjson.dumps(new) == orjson.dumps(model)
