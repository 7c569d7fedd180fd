"""Scenario files: commands and what they print, in the form of etcd's and CockroachDB's `datadriven` tests.

    # a comment
    command word key=value
    optional input lines
    ----
    expected output

Blocks are separated by blank lines. With `rewrite` the expected output is replaced by the actual one: review the diff.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Block:
    """One directive."""

    comments: tuple[str, ...]
    command: str
    words: tuple[str, ...]
    options: dict[str, str]
    input: str
    expected: str

    @property
    def head(self) -> str:
        options = [f'{k}={v}' for k, v in self.options.items()]
        return ' '.join([self.command, *self.words, *options])


def parse(text: str) -> list[Block]:
    """Raises ValueError for a block without `----`."""
    blocks = []
    for chunk in text.strip().split('\n\n'):
        lines = chunk.splitlines()
        comments = tuple(line for line in lines if line.startswith('#'))
        body = [line for line in lines if not line.startswith('#')]
        if not body:
            blocks.append(Block(comments, '', (), {}, '', ''))
            continue
        if '----' not in body:
            raise ValueError(f'no ---- after {body[0]!r}')
        at = body.index('----')
        command, *rest = body[0].split()
        words = tuple(w for w in rest if '=' not in w)
        options = dict(w.split('=', 1) for w in rest if '=' in w)
        blocks.append(Block(comments, command, words, options, '\n'.join(body[1:at]), '\n'.join(body[at + 1 :])))
    return blocks


def run(path: Path, handle: Callable[[Block], str], *, rewrite: bool) -> None:
    """Give every block of `path` to `handle` and compare. Raises AssertionError naming the block."""
    shown = []
    for block in parse(path.read_text()):
        actual = handle(block).strip('\n') if block.command else ''
        if not rewrite:
            assert actual == block.expected, (
                f'{path.name}: {block.head}\n--- actual ---\n{actual}\n--- expected ---\n{block.expected}'
            )
        lines = [*block.comments]
        if block.command:
            lines += [block.head, *([block.input] if block.input else []), '----', *([actual] if actual else [])]
        shown.append('\n'.join(lines))
    if rewrite:
        path.write_text('\n\n'.join(shown) + '\n')
