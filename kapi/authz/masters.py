"""`system:masters` may do everything."""

from __future__ import annotations

from kapi.authn.user import MASTERS
from kapi.authz.union import NO_OPINION, Attributes, Decision

ALLOW = Decision('allow')


class Masters:
    name = 'masters'

    async def decide(self, a: Attributes) -> Decision:
        return ALLOW if MASTERS in a.user.groups else NO_OPINION
