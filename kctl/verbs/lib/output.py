"""-o of the verbs that change something."""

from __future__ import annotations

from typing import Any

import click

from kctl.verbs.lib.errors import CliError
from kctl.verbs.lib.session import say


def print_object(obj: dict[str, Any], label: str, output: str) -> None:
    """name, yaml, json, jsonpath=…, custom-columns=…. Raises CliError."""
    from kctl import printers  # noqa: PLC0415 — only with -o

    if output == 'name':
        say(label)
        return
    text = printers.structured(output, [printers.without_managed_fields(obj)], single=True)
    if text is None:
        raise CliError(f'unable to match a printer suitable for the output format "{output}"')
    click.echo(text, nl=False)
