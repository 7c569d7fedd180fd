"""How the servers behind named images end: at once, whatever their threads are doing.

A Python handler runs when the main thread comes back to it: a signal that arrives just before `accept` is entered
would wait for the next connection. The byte that the interpreter's own handler writes does not, and a thread waits for
it. It leaves without an exception, which would meet the others anywhere; what they have said is flushed with each line.
"""

from __future__ import annotations

import os
import signal
from threading import Thread


def end_at(*numbers: signal.Signals, saying: str = '') -> None:
    """Exit with 0 at any of these signals."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    for number in numbers:
        signal.signal(number, lambda *_: None)

    def leave() -> None:
        while os.read(told, 1)[0] not in numbers:
            pass
        os.write(1, saying.encode())
        os._exit(0)

    Thread(target=leave, daemon=True).start()
