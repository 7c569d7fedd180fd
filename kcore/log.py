"""structlog, set up once a process: a constant sentence, facts as keys, identity bound once.

Rules (from docs/decisions/0003): the event is a lower-case past-tense sentence without variables; the keys are
`object` (`ns/name`), `kind`, `uid`, `node`, `request`, `reconcile`, `term`, `index`, `rv`, `took_ms`, `err`;
error = a human should act, warning = degraded but handled, info = state changed, debug = per message. Never
Secret data, never whole objects.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

# Where `rich` is installed structlog takes it in, for tracebacks on terminals: 3 MB that every component would carry.
_hidden = 'rich' not in sys.modules
if _hidden:
    sys.modules['rich'] = None  # type: ignore[assignment]
import structlog  # noqa: E402 — has to find no `rich`

if _hidden:
    del sys.modules['rich']

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
