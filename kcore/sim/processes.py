"""There are no child processes in the simulation; a component that needs one gets the error of a missing program."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

from kcore.env import Process


class NoProcesses:
    async def spawn(self, argv: Sequence[str], **_: Any) -> Process:
        """Raises FileNotFoundError."""
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
