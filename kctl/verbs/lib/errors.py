"""Errors of the command line, and how they are said: one line, as kubectl says it, and exit code 1."""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]


class CliError(Exception):
    """Its text is what the user reads, after `error: `."""


class Refused(Exception):
    """The server answered with a failure Status."""

    def __init__(self, status: Obj, doing: str = '') -> None:
        super().__init__(str(status.get('message', '')))
        self.status = status
        self.doing = doing
        """For a manifest: `error when creating "file.yaml"`."""

    @property
    def code(self) -> int:
        return int(self.status.get('code') or 0)

    @property
    def reason(self) -> str:
        return str(self.status.get('reason') or '')

    def text(self) -> str:
        """As kubectl prints it."""
        if self.code == 401:
            return 'error: You must be logged in to the server (Unauthorized)'
        details = self.status.get('details') or {}
        if self.reason == 'Invalid' and (details.get('kind') or details.get('name')):
            return f'The {details.get("kind", "")} "{details.get("name", "")}" is invalid{self._causes(details)}'
        if self.reason == 'Invalid' and not details.get('causes'):
            return f'The request is invalid: {self}'
        prefix = f'Error from server ({self.reason})' if self.reason else 'Error from server'
        doing = f'{self.doing}: ' if self.doing else ''
        return f'{prefix}: {doing}{self}'

    def _causes(self, details: Obj) -> str:
        lines = [f'{c.get("field")}: {c.get("message")}' if c.get('field') else str(c.get('message'))
                 for c in details.get('causes') or ()]  # fmt: skip
        if not lines:
            return f': {self}'
        return f': {lines[0]}' if len(lines) == 1 else ': \n' + '\n'.join(f'* {line}' for line in lines)


class Unreachable(Exception):
    """No server answered."""
