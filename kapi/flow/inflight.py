"""In-flight limits: so many reads and so many writes at once, the rest gets 429 and comes back.

Watches and streams do not count; neither do the requests by which the cluster stays alive (leases, node status,
health), so that a flood of ordinary requests never looks like dead nodes or lost leaders.
"""

from __future__ import annotations

from kapi.authn.user import MASTERS, User
from kapi.errors import TooManyRequests
from kapi.server.requestinfo import RequestInfo

RETRY_AFTER_S = 1
_READS = frozenset({'get', 'list', 'watch', 'head'})
EXEMPT_PATHS = ('/healthz', '/livez', '/readyz')
EXEMPT_GROUPS = frozenset({'system:nodes', MASTERS})
EXEMPT_RESOURCES = frozenset({'leases'})
SYSTEM_USERS = ('system:kube-controller-manager', 'system:kube-scheduler', 'system:apiserver')


def exempt(info: RequestInfo, user: User) -> bool:
    """Whether the request passes however busy the server is."""
    if not info.is_resource:
        return info.path.startswith(EXEMPT_PATHS)
    system = user.name in SYSTEM_USERS or 'system:nodes' in user.groups
    if system and (info.plural in EXEMPT_RESOURCES or (info.plural, info.subresource) == ('nodes', 'status')):
        return True
    return MASTERS in user.groups and user.name in SYSTEM_USERS


class InFlight:
    """Two counters with a bound each."""

    def __init__(self, reads_max: int, writes_max: int) -> None:
        self.limits = {'readOnly': reads_max, 'mutating': writes_max}
        self.counts = {'readOnly': 0, 'mutating': 0}

    def enter(self, info: RequestInfo) -> str:
        """The counter that was raised, for `leave`. Raises TooManyRequests."""
        kind = 'readOnly' if info.verb in _READS else 'mutating'
        if self.counts[kind] >= self.limits[kind]:
            raise TooManyRequests('Too many requests, please try again later.', retry_after_s=RETRY_AFTER_S)
        self.counts[kind] += 1
        return kind

    def leave(self, kind: str) -> None:
        self.counts[kind] -= 1
