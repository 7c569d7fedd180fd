"""Runs `module:function` as a program: `python run.py module:function ARGS…` (the entry point of `py://` images).

Started by path, so that it needs no installation: the checkout's root takes this directory's place on `sys.path`.
"""

from __future__ import annotations

import importlib
import os
import sys


def main() -> int:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    target = sys.argv[1]
    sys.argv = [target, *sys.argv[2:]]
    module, _, function = target.partition(':')
    try:
        call = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as e:
        print(f'py://{target}: {e}', file=sys.stderr)
        return 127
    code = call()
    return code if isinstance(code, int) else 0


if __name__ == '__main__':
    sys.exit(main())
