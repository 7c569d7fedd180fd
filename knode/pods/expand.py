"""`$(VAR)` expansion in command, args and env values.

`$(NAME)` becomes the variable's value, or stays as it is when there is no such variable; `$$` becomes `$`, so that
`$$(NAME)` is the text `$(NAME)`; a `$` before anything else is just a `$`. Source: kubernetes
third_party/forked/golang/expansion/expand.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r'\$(?:\$|\(([^)]*)\))')


def names(text: str) -> list[str]:
    """The variables that `text` refers to."""
    return [found[1] for found in _REFERENCE.finditer(text) if found[1] is not None]


def expand(text: str, variables: Mapping[str, str]) -> str:
    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return '$'
        return variables.get(name, found[0])

    return _REFERENCE.sub(replace, text)
