"""Does nothing until it is told to stop: the `pause` image."""

from __future__ import annotations

import signal


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.pause()
    return 0
