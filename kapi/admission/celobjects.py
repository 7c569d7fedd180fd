"""CEL's object literals, `Object.spec{replicas: 3}` and `JSONPatch{op: "add", …}`, as the maps that they stand for.

The evaluator knows no message types, and a mutation needs none: before compilation `Object{a: 1}` becomes `{"a": 1}`.
"""

from __future__ import annotations

import re

from kapi.admission.cel import CelError

_TOKEN = re.compile(
    r"""(?P<text>[rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
      | (?P<comment>//[^\n]*)
      | (?P<type>\b(?:Object|JSONPatch)\b(?:\s*\.\s*[A-Za-z_]\w*)*\s*(?=\{))
      | (?P<name>[A-Za-z_]\w*(?:\s*\.\s*[A-Za-z_]\w*)*)
      | (?P<space>\s+)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def plain(text: str) -> str:
    """The same expression without object literals. Raises CelError for an optional field, which nobody evaluates."""
    out: list[str] = []
    open_brackets: list[str] = []
    """`m` a message, where names before a colon are fields; `x` anything else."""
    literal = False
    field_next = False
    for match in _TOKEN.finditer(text):
        kind, piece = match.lastgroup, match[0]
        if kind in {'space', 'comment'}:
            out.append(' ')
            continue
        if kind == 'type':
            literal = True
            continue
        if piece == '{' or piece in '([':
            open_brackets.append('m' if literal and piece == '{' else 'x')
            field_next = open_brackets[-1] == 'm'
            literal = False
        elif piece in '}])' and kind == 'other':
            field_next = False
            if open_brackets:
                open_brackets.pop()
        elif piece == ',':
            field_next = bool(open_brackets) and open_brackets[-1] == 'm'
        elif field_next:
            if piece == '?':
                raise CelError('compilation failed: optional fields of objects are not supported')
            piece, field_next = (f'"{piece}"' if kind == 'name' else piece), False
        out.append(piece)
    return ''.join(out)
