"""structlog, set up once a process: a constant sentence, facts as keys, identity bound once.

Rules (from docs/decisions/0003): the event is a lower-case past-tense sentence without variables; the keys are
`object` (`ns/name`), `kind`, `uid`, `node`, `request`, `reconcile`, `term`, `index`, `rv`, `took_ms`, `err`;
error = a human should act, warning = degraded but handled, info = state changed, debug = per message. Never
Secret data, never whole objects.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Literal


@contextlib.contextmanager
def _hidden(module: str) -> Iterator[None]:
    """While inside, `module` is not there for who asks whether it can be imported."""
    held = sys.modules.get(module)
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
        if held is not None:
            sys.modules[module] = held


# structlog draws tracebacks with `rich` where there is one, and it cannot be told not to before it has imported it.
# Two of our dependencies bring it: every component would start 35 ms of CPU later and carry 5 MB that nothing uses.
with _hidden('rich'):
    import structlog

Level = Literal['debug', 'info', 'warning', 'error']


def setup(component: str, *, level: Level = 'info', json: bool | None = None) -> None:
    """Log to standard error: readable lines on a terminal, one JSON object a line elsewhere (`json` overrides)."""
    plain = not sys.stderr.isatty() if json is None else json
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if plain else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt='iso', utc=True, key='ts'),
            *([structlog.processors.format_exc_info] if plain else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(component=component)
    # Libraries that log through the standard module: their warnings matter, their chatter does not.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format='%(levelname)s %(name)s %(message)s')
