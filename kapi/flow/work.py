"""How wide a request is: lists of many objects take several seats. Pure.

Source: apiserver pkg/util/flowcontrol/request (list_work_estimator). Writes are one seat wide whatever their number of
watchers; upstream holds further seats for the time that events take, which here is spent in the turn of the loop.
"""

from __future__ import annotations

import math

from kapi.registry.options import flag, text
from kapi.server.requestinfo import RequestInfo

OBJECTS_PER_SEAT = 100
WIDTH_MAX = 10
WIDTH_OF_NOMINAL = 0.15
"""A request is at most this part of its level's nominal seats wide."""


def width_max(nominal: int, hand: int) -> int:
    """The widest request of a level with so many seats, so that no request fills it."""
    return max(1, min(WIDTH_MAX, math.ceil(nominal * WIDTH_OF_NOMINAL), nominal // max(hand, 1)))


def width(info: RequestInfo, stored: int, most: int) -> int:
    """Seats of a list, or of a watch that begins with one, of a resource with `stored` objects; at most `most`."""
    if info.name or (info.verb == 'watch' and not flag(info.query, 'sendInitialEvents')):
        return 1
    return max(1, min(most, math.ceil(_looked_at(info, stored) / OBJECTS_PER_SEAT)))


def _looked_at(info: RequestInfo, stored: int) -> int:
    """Objects that are read to answer: all for a list from the cache, pages of an older version from the store."""
    query = info.query
    if text(query, 'fieldSelector').startswith('metadata.name='):
        return 1
    asked = text(query, 'limit')
    limit = min(int(asked), stored) if asked.isdecimal() and int(asked) else stored
    version = text(query, 'resourceVersion')
    paged = bool(text(query, 'continue')) or (limit < stored and version not in {'', '0'})
    selective = bool(text(query, 'fieldSelector') or text(query, 'labelSelector'))
    if not paged and text(query, 'resourceVersionMatch') != 'Exact':
        return stored if selective or version == '0' else limit
    return stored + limit if selective else 2 * limit
