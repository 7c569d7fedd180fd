"""CEL in admission: match conditions of webhooks, and policies. Compiled once, evaluated against JSON.

Functions of Kubernetes' own (lists, strings, quantities) are shared with the rules of custom resources.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kapi.admission.celauthz import VARIABLE, Decisions, Undecided
from kapi.crd.celengine import compiled, engine

if TYPE_CHECKING:
    from cel import Program

EXPRESSION_BYTES_MAX = 16 * 1024
"""A longer expression does not compile."""
PROGRAMS_MAX = 2_048
"""Compiled expressions kept; the oldest goes first."""


class CelError(Exception):
    """An expression that does not compile, or does not evaluate; the text is for the client."""


class Expressions:
    """A bounded cache of programs."""

    def __init__(self) -> None:
        self._programs: dict[str, Program] = {}

    def compile(self, text: str) -> Program:
        """Raises CelError."""
        found = self._programs.get(text)
        if found is not None:
            return found
        if len(text.encode()) > EXPRESSION_BYTES_MAX:
            raise CelError(f'compilation failed: the expression exceeds {EXPRESSION_BYTES_MAX} bytes')
        try:
            program = compiled(text)
        except Exception as e:
            raise CelError(f'compilation failed: {e}') from None
        if len(self._programs) >= PROGRAMS_MAX:
            self._programs.pop(next(iter(self._programs)))
        self._programs[text] = program
        return program

    def evaluate(self, text: str, variables: Mapping[str, Any], decisions: Decisions | None = None) -> Any:
        """`decisions` answers what the expression asks of `authorizer`. Raises CelError, Undecided."""
        program = self.compile(text)
        library, functions = engine()
        names = dict(variables)
        asks = decisions is not None and VARIABLE in program.variables()
        if asks:
            assert decisions is not None
            names[VARIABLE], functions = decisions.value, {**functions, **decisions.functions}
        try:
            return program.execute(library.Context(variables=names, functions=functions))
        except Exception as e:
            if asks and decisions is not None and decisions.pending is not None:
                raise Undecided from None
            missing = f'no such key: {e.args[0]}' if isinstance(e, KeyError) and e.args else str(e)
            raise CelError(f"expression '{text}' resulted in error: {missing}") from None

    def truth(self, text: str, variables: Mapping[str, Any], decisions: Decisions | None = None) -> bool:
        """Raises CelError, also for what is not a boolean; Undecided."""
        found = self.evaluate(text, variables, decisions)
        if not isinstance(found, bool):
            raise CelError(f"expression '{text}' must evaluate to bool")
        return found
