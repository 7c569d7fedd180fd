"""No secret in clear text: values that tests put into Secrets carry a mark, and nothing a test run leaves may show it.

`pytest_sessionfinish` in conftest.py looks through every file below the run's temporary directories, once the last test
has ended: logs, write-ahead logs, LMDB pages, snapshots, audit logs. Where secrets belong, `HOMES` says so and why.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path

MARK = 'k3epm3hush'
"""Part of every secret value of a test. Fits a bootstrap token's secret, which has 16 lower-case letters and digits."""
HOMES = re.compile(
    r"""/pods/[^/]+/(volumes|logs|containers|staging)/   # what a pod mounts and prints is the pod's own
      | (^|/)(pki|truststore)[^/]*/ | \.key$ | \.keys$   # keys; kept apart from everything else
      | (^|/)[^/]*kubeconfig[^/]*$ | \.conf$             # credentials of people and components
      | (^|/)popen-gw\d+/pki\d*/ | (^|/)alice$ | /old$   # the same, as single tests name them
    """,
    re.VERBOSE,
)
"""Files, by their path below the run's directory, that rightly hold secrets."""
TOKEN = rb'eyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{40,}'
PRIVATE = rb'-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\n[A-Za-z0-9+/]{40}'
STORED = rb'"kind":"Secret","metadata":\{'
"""A whole Secret, as the store or an audit log would hold it."""


def hushed(text: str) -> str:
    """A value for a Secret of a test."""
    return MARK + text


def forms(mark: str) -> Iterator[bytes]:
    """The mark as itself, as hexadecimal digits, and as base64 at each of the three alignments."""
    raw = mark.encode()
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for shift in range(3):
        coded = base64.b64encode(b'\0' * shift + raw).rstrip(b'=')
        whole = (shift + len(raw)) * 8 // 6
        yield coded[-(-shift * 8 // 6) : whole]


WANTED = re.compile(b'|'.join([*map(re.escape, forms(MARK)), TOKEN, PRIVATE, STORED]))


def leaks(root: Path) -> list[str]:
    """`path: what was found` for each file below `root` that shows a secret; what is found is cut short."""
    found = []
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder, name)
            inner = f'/{path.relative_to(root)}'
            if HOMES.search(inner) or path.is_symlink() or not path.is_file():
                continue
            hit = WANTED.search(path.read_bytes())
            if hit is not None:
                found.append(f'{inner[1:]}: {hit[0][:24]!r}…')
    return found
