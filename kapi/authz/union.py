"""Authorizers asked in order: the first opinion wins, silence is a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from kapi.authn.user import User


class Attributes(NamedTuple):
    """One question: may `user` do `verb` there? `path` is set for requests that name no resource."""

    user: User
    verb: str
    group: str = ''
    version: str = ''
    resource: str = ''
    subresource: str = ''
    namespace: str = ''
    name: str = ''
    path: str = ''
    field_selector: str = ''
    """Of a list, watch or deletecollection."""

    @property
    def full_resource(self) -> str:
        return f'{self.resource}/{self.subresource}' if self.subresource else self.resource


@dataclass(frozen=True, slots=True)
class Decision:
    verdict: Literal['allow', 'deny', 'no opinion']
    reason: str = ''


NO_OPINION = Decision('no opinion')


class Authorizer(Protocol):
    name: str

    async def decide(self, a: Attributes) -> Decision: ...


class Union:
    def __init__(self, authorizers: Sequence[Authorizer]) -> None:
        self.authorizers = tuple(authorizers)

    async def decide(self, a: Attributes) -> Decision:
        reasons: list[str] = []
        for authorizer in self.authorizers:
            decision = await authorizer.decide(a)
            if decision.verdict != 'no opinion':
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return Decision('no opinion', ' '.join(reasons))
