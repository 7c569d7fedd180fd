"""Does nothing until it is told to stop: the `pause` image."""

from __future__ import annotations

import signal


def main() -> int:
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # one that comes before we wait must not be missed
    signal.sigwait(ends)
    return 0
