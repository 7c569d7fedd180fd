"""Waiting on one object: look, then watch from there, until something holds or time is up."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kcore.env import Env
from kctl.verbs.lib.errors import Refused, Unreachable

if TYPE_CHECKING:
    from kctl.verbs.lib.session import Session
    from kctl.verbs.lib.targets import Target

Obj = dict[str, Any]

RETRY_S = 0.5
"""Pause before an interrupted watch is taken up again."""


def states(session: Session, target: Target, timeout_s: float | None) -> Iterator[Obj | None]:
    """The object now and after every change, None when it does not exist; ends when `timeout_s` is over."""
    clock = Env.real().clock
    give_up = None if timeout_s is None else clock.monotonic() + timeout_s
    collection = target.known.resource.path(target.namespace)
    only = {'fieldSelector': f'metadata.name={target.name}'}
    while True:
        left = None if give_up is None else give_up - clock.monotonic()
        listed = session.http.get(collection, only)
        items = listed.get('items') or []
        r = target.known.resource
        yield {'apiVersion': r.api_version, 'kind': r.kind, **items[0]} if items else None
        if left is not None and left <= 0:
            return
        params = {
            **only,
            'watch': 'true',
            'resourceVersion': (listed.get('metadata') or {}).get('resourceVersion'),
            'timeoutSeconds': str(max(1, round(left))) if left is not None else '300',
        }
        try:
            for line in session.http.lines(collection, params):
                event = json.loads(line)
                if event['type'] == 'ERROR':
                    break
                if event['type'] != 'BOOKMARK':
                    yield None if event['type'] == 'DELETED' else event['object']
        except (Refused, Unreachable):
            threading.Event().wait(RETRY_S)
