"""The evaluator of CEL, loaded by the first expression, and how an expression becomes a program."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from kapi.crd.celparse import NotParsed, renamed

if TYPE_CHECKING:
    from cel import Program

OWN = {'string': '_string'}
"""Functions that we call by other names, because the evaluator's own are not like cel-go's and come first."""


@cache
def engine() -> tuple[Any, dict[str, Any]]:
    """The evaluator's module and the functions that expressions may call."""
    import cel  # noqa: PLC0415 — takes a third of a second, and most servers never see an expression

    from kapi.crd.celfuncs import FUNCTIONS  # noqa: PLC0415

    return cel, dict(FUNCTIONS)


def compiled(source: str) -> Program:
    """Raises ValueError with the compiler's words."""
    program: Program = engine()[0].compile(source)
    if not any(name in source for name in OWN):
        return program
    try:
        ours = renamed(source, OWN)
    except NotParsed:  # by ours alone: then it is the evaluator's affair
        return program
    return program if ours == source else engine()[0].compile(ours)
