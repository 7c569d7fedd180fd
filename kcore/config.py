"""Configuration: one frozen model a process, read from flags and environment, every mistake named in one line.

A process's settings are a subclass of `Config`. Its fields become `--kebab-case` flags, their `description`s the
help. Precedence: flag, environment variable (`<PREFIX>_FIELD`), default.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from kcore.log import Level

C = TypeVar('C', bound='Config')


def _address(value: str) -> str:
    host, _, port = value.rpartition(':')
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError('must be HOST:PORT, for example 127.0.0.1:6443')
    return value


Address = Annotated[str, AfterValidator(_address)]
"""`HOST:PORT`; port 0 picks a free one where the process listens."""


def _ip(value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value)) if value else ''
    except ValueError:
        raise ValueError(f'must be an IPv4 address, not {value!r}') from None


IpAddress = Annotated[str, AfterValidator(_ip)]
"""An IPv4 address, or nothing."""


def split_address(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(':')
    return host.strip('[]'), int(port)


class Config(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, extra='forbid', nested_model_default_partial_update=False)

    log_level: Level = 'info'

    @classmethod
    def load(cls, argv: Sequence[str] | None = None, *, prog: str) -> Self:
        """Read flags; on a mistake print one line that names the flag and exit with code 2."""
        parser = argparse.ArgumentParser(prog=prog, description=(cls.__doc__ or '').splitlines()[0], allow_abbrev=False)
        for name, field in cls.model_fields.items():
            flag = f'--{name.replace("_", "-")}'
            text = (field.description or '').replace('%', '%%')
            if field.annotation is bool:
                parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
            else:
                parser.add_argument(flag, default=argparse.SUPPRESS, metavar=name.upper(), help=text)
        given = vars(parser.parse_args(argv))
        try:
            return cls(**{k: _parse(cls, k, v) for k, v in given.items()})
        except ValidationError as e:
            for line in explain(e):
                print(f'{prog}: {line}', file=sys.stderr)
            raise SystemExit(2) from None


def explain(e: ValidationError) -> list[str]:
    """One line a mistake, naming the flag."""
    lines = []
    for err in e.errors():
        where = '--' + '.'.join(str(p) for p in err['loc']).replace('_', '-') if err['loc'] else 'flags'
        lines.append(f'{where}: {err["msg"].removeprefix("Value error, ")}')
    return lines


def _parse(cls: type[Config], name: str, value: Any) -> Any:
    """Comma lists for tuple fields, `a=b` lists for dict fields; everything else goes to pydantic as text."""
    kind = str(cls.model_fields[name].annotation)
    if not isinstance(value, str):
        return value
    if kind.startswith('tuple['):
        return tuple(part.strip() for part in value.split(',') if part.strip())
    if kind.startswith('dict['):
        return {k: v for k, _, v in (part.partition('=') for part in value.split(',') if part)}
    return value
