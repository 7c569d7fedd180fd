"""Resource quantities: `100m`, `1.5Gi`, `12e6`.

A quantity is an exact decimal with a *format* (binary SI, decimal SI or exponent) that survives arithmetic, so that
`1024Mi` prints as `1Gi` and never as `1073741824`. Precision ends at 10⁻⁹, rounding is always up, and the magnitude
ends at 2⁶³-1. Source: apimachinery/pkg/api/resource/quantity.go.
"""

from __future__ import annotations

import re
from decimal import ROUND_UP, Context, Decimal
from functools import lru_cache
from typing import Literal

Format = Literal['BinarySI', 'DecimalSI', 'DecimalExponent']
Quantity = str | int | float | Decimal

CACHED_QUANTITIES = 4096
MAX_VALUE = Decimal(2**63 - 1)
_SYNTAX = re.compile(r'([+-]?)(\d+(?:\.\d*)?|\.\d+)([numkMGTPE]?|[KMGTPE]i|[eE][+-]?\d+)')
_PATTERN = '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
_BINARY = {'Ki': 10, 'Mi': 20, 'Gi': 30, 'Ti': 40, 'Pi': 50, 'Ei': 60}
_DECIMAL = {'n': -9, 'u': -6, 'm': -3, '': 0, 'k': 3, 'M': 6, 'G': 9, 'T': 12, 'P': 15, 'E': 18}
_DECIMAL_BY_EXPONENT = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_NANO = Decimal('1e-9')
_MATH = Context(prec=60, Emax=4000, Emin=-4000)
_MAX_DIGITS = 100


class QuantityError(ValueError):
    """Not a quantity; the text is upstream's."""


def parse(q: Quantity) -> Decimal:
    """The exact value, rounded up to 10⁻⁹. Raises QuantityError."""
    return _parse(str(q))[0]


def format_of(q: Quantity) -> Format:
    """How `q` is written. Raises QuantityError."""
    return _parse(str(q))[1]


@lru_cache(maxsize=CACHED_QUANTITIES)
def _parse(text: str) -> tuple[Decimal, Format]:
    found = _SYNTAX.fullmatch(text) if len(text) <= _MAX_DIGITS else None
    if found is None:
        raise QuantityError(f"quantities must match the regular expression '{_PATTERN}'")
    sign, digits, suffix = found.groups()
    value, form = _scaled(Decimal(digits), suffix)
    value = min(value, MAX_VALUE)
    if int(value.as_tuple().exponent) < -9:
        value = value.quantize(_NANO, rounding=ROUND_UP, context=_MATH)
    return (-value if sign == '-' else value), form


def _scaled(value: Decimal, suffix: str) -> tuple[Decimal, Format]:
    if suffix in _BINARY:
        return _MATH.multiply(value, Decimal(2 ** _BINARY[suffix])), 'BinarySI'
    if suffix in _DECIMAL:
        return _MATH.scaleb(value, _DECIMAL[suffix]), 'DecimalSI'
    exponent = int(suffix[1:])
    if abs(exponent) > 1000:
        exponent = 1000 if exponent > 0 else -1000
    return _MATH.scaleb(value, exponent), 'DecimalExponent'


def _ceil(value: Decimal) -> int:
    whole = int(value)
    return whole + (value > whole)


def value(q: Quantity) -> int:
    """Whole units, rounded up: bytes of memory, number of pods."""
    return _ceil(parse(q))


def milli(q: Quantity) -> int:
    """Thousandths, rounded up: millicores of cpu."""
    return _ceil(_MATH.multiply(parse(q), Decimal(1000)))


def format(amount: Decimal | int, form: Format = 'DecimalSI') -> str:
    """Canonical text: no fraction, and the largest suffix that loses no digit."""
    exact = Decimal(amount)
    if exact == 0:
        return '0'
    if form == 'BinarySI' and abs(exact) >= 1024:
        return _format_binary(exact)
    sign, digits, exponent = exact.normalize(_MATH).as_tuple()
    assert isinstance(exponent, int)
    number = int(''.join(map(str, digits)))
    while exponent % 3:
        number, exponent = number * 10, exponent - 1
    if exponent < -9:
        number, exponent = _ceil(_MATH.scaleb(abs(exact), 9)), -9
    if exponent > 18 and form != 'DecimalExponent':
        number, exponent = number * 10 ** (exponent - 18), 18
    suffix = _DECIMAL_BY_EXPONENT[exponent] if form != 'DecimalExponent' else f'e{exponent}' if exponent else ''
    return f'{"-" if sign else ""}{number}{suffix}'


def _format_binary(exact: Decimal) -> str:
    number = _ceil(abs(exact))
    suffix = ''
    for candidate in _BINARY:
        if number % 1024:
            break
        number, suffix = number // 1024, candidate
    return f'{"-" if exact < 0 else ""}{number}{suffix}'


@lru_cache(maxsize=CACHED_QUANTITIES)
def _canonical(text: str) -> str:
    return format(*_parse(text))


def canonical(q: Quantity) -> str:
    """As the server stores it: `0.5` → `500m`, `1024Mi` → `1Gi`, 2 → `2`. Raises QuantityError."""
    return _canonical(str(q))


def add(a: Quantity, b: Quantity) -> str:
    """Sum in the format of `a`, or of `b` when `a` is zero."""
    left, form = _parse(str(a))
    right, other = _parse(str(b))
    return format(_MATH.add(left, right), form if left else other)


def subtract(a: Quantity, b: Quantity) -> str:
    left, form = _parse(str(a))
    right, other = _parse(str(b))
    return format(_MATH.subtract(left, right), form if left else other)
